"""The tree of processes, drawn at the end."""

from io import StringIO

from kubectl_gadget.observe import formats
from kubectl_gadget.observe.formats import Tree, TreeSink
from kubectl_gadget.observe.happening import FileEvent
from kubectl_gadget.output.tables import text_width
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.wire.policy_events import ExecId, PolicyEvent
from tests.observe.lives import SHELL, Life, event, executed, vi


def test_processes_stand_below_their_parents_with_what_they_did() -> None:
    life, drawn = Life(), Tree()
    identity = vi(life)
    for _ in range(3):
        drawn.add(life.told(FileEvent("write", identity, 11, "/etc/passwd", 1, 2, 3, bytes=5)))
    drawn.add(life.told(PolicyEvent("kprobe", identity, function="f", policy="guard", blocked=True, verdict="EPERM")))
    child = ExecId(4001, 20)
    life.apply(event("fork", ExecId(4000, 20), identity))
    drawn.add(life.told(executed(child, "/bin/ls")))
    drawn.add(life.told(event("exit", child, code=2)))
    drawn.add(life.told(event("exit", identity, signal=9)))
    assert list(drawn.lines()) == [
        "default/xwing spaceship on node-1",
        "└─ 10 /bin/sh",
        "   └─ 11 /usr/bin/vi /etc/passwd  SIGKILL",
        "      ├─ 📝 write /etc/passwd 5 bytes, 3 times",
        "      ├─ ❓ call f BLOCKED EPERM (guard)",
        "      └─ 20 /bin/ls  exit 2",
    ]


def test_what_a_process_did_is_bounded_and_what_is_left_out_is_reported() -> None:
    life, drawn = Life(), Tree()
    identity = vi(life)
    for number in range(formats.MOST_ACTIONS + 7):
        drawn.add(life.told(FileEvent("open", identity, 11, f"/{number}", 1, 2, 3)))
    lines = list(drawn.lines())
    assert len(lines) == 3 + formats.MOST_ACTIONS + 1
    assert lines[-1].endswith("└─ 7 more")


def test_processes_are_bounded_and_what_is_left_out_is_reported() -> None:
    life, drawn = Life(), Tree()
    most, formats.MOST_PROCESSES = formats.MOST_PROCESSES, 2
    try:
        for number in range(5):
            drawn.add(life.told(executed(ExecId(number + 1, number + 1), "/bin/true")))
    finally:
        formats.MOST_PROCESSES = most
    assert list(drawn.lines())[-1] == "3 events of further processes are left out"
    assert life.table.find(SHELL) is None


def test_a_container_that_forks_very_deep_does_not_break_the_tree() -> None:
    life, drawn = Life(), Tree()
    above = SHELL
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",)))
    for number in range(3000):
        forked, program = ExecId(2000 + 2 * number, 100 + number), ExecId(2001 + 2 * number, 100 + number)
        life.apply(event("fork", forked, above, exe="/bin/sh"))
        drawn.add(life.told(executed(program, "/bin/sh", parent=above)))
        above = program
    lines = list(drawn.lines())
    assert len(lines) == 1 + 1 + 3000
    assert max(map(len, lines)) < 300


def test_lines_are_cut_on_a_terminal_and_not_in_a_pipe() -> None:
    life = Life()
    happened = life.told(FileEvent("write", vi(life), 11, "/etc/" + "x" * 100, 1, 2, 3, bytes=5))
    piped, shown = StringIO(), StringIO()
    for stream, terminal in ((piped, None), (shown, Terminal(lambda: 40))):
        sink = TreeSink(stream, terminal)
        sink._tree.add(happened)
        sink.close()
    assert piped.getvalue().count("\n") == shown.getvalue().count("\n")
    assert max(map(text_width, piped.getvalue().splitlines())) > 100
    lines = shown.getvalue().splitlines()
    assert max(map(text_width, lines)) <= 40
    assert lines[-1].endswith("…")
