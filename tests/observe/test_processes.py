"""How programs and their arguments are shown."""

from dataclasses import replace

import pytest

from kubectl_gadget.observe.lines import command_text
from kubectl_gadget.observe.processes import KEEP_NS, MOST_ANCESTORS, MOST_SANDBOXES, join_arguments, program_of
from kubectl_gadget.rows.containers import HOST
from kubectl_gadget.wire.policy_events import ExecId
from tests.observe.lives import SECOND, SHELL, XWING, Life, event, executed, vi


def test_a_program_is_named_as_it_was_called_since_one_file_may_be_many() -> None:
    assert program_of(executed(SHELL, "/usr/bin/vi", "x", exe="/bin/busybox")) == ("/usr/bin/vi", ("x",))


@pytest.mark.parametrize(("path", "program"), [("./vi", "/home/vi"), ("bin/vi", "/home/bin/vi")])
def test_a_relative_path_starts_at_the_working_directory(path: str, program: str) -> None:
    assert program_of(executed(SHELL, "vi", path=path, exe="/bin/busybox", cwd="/home")) == (program, ())


@pytest.mark.parametrize("path", ["/dev/fd/3", "/proc/self/exe", "../vi", None])
def test_where_the_name_says_nothing_for_certain_the_file_is_reported_and_the_programs_own_name_stays(
    path: str | None,
) -> None:
    happened = executed(SHELL, "wget", "-q", path=path, exe="/bin/busybox", cwd="/home")
    assert program_of(happened) == ("/bin/busybox", ("wget", "-q"))


def test_a_script_is_its_interpreter() -> None:
    happened = executed(SHELL, "/bin/sh", "-e", "/run.sh", "x", path="/run.sh", exe="/usr/bin/dash", interpreted=True)
    assert program_of(happened) == ("/bin/sh", ("-e", "/run.sh", "x"))


def test_what_was_there_before_is_known_by_its_file_and_its_own_name() -> None:
    running = event("running", SHELL, exe="/bin/busybox", args=("sh", "-c", "true"))
    assert program_of(running) == ("/bin/busybox", ("sh", "-c", "true"))
    assert program_of(event("running", SHELL, exe="/bin/sh", args=("sh", "-c"))) == ("/bin/sh", ("-c",))


def test_arguments_stand_in_quotes_where_they_need_them() -> None:
    assert join_arguments(("a", "b c", "", "d\te")) == 'a "b c" "" "d\te"'


def test_arguments_that_were_cut_say_so() -> None:
    process = Life().told(executed(SHELL, "/bin/x", "a", args_cut=True)).process
    assert (process.arguments, command_text(process)) == ("a…", "/bin/x a…")


# The table of processes: parents, and when entries are removed.


def test_a_program_has_the_parent_that_forked_its_process_whoever_it_is_now() -> None:
    life = Life()
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",)))
    life.apply(event("fork", ExecId(2000, 11), SHELL))
    life.apply(event("exit", SHELL))
    process = life.apply(executed(ExecId(2001, 11), "/bin/true", parent=ExecId(1, 1)))
    assert process.parent is not None
    assert process.parent.id == process.parent_id == SHELL


def test_a_forked_process_runs_its_parents_program() -> None:
    life = Life()
    life.apply(executed(SHELL, "/bin/sh", "-c", "x"))
    process = life.apply(event("fork", ExecId(2000, 11), SHELL, exe="/bin/busybox"))
    assert process.command == "/bin/sh -c x"
    assert process.flags == ("rootcwd", "clone")


def test_a_chain_of_execs_keeps_the_parent_and_says_that_it_was_forked_once() -> None:
    life = Life()
    identity = vi(life)
    following = life.apply(executed(ExecId(identity.started + 1, identity.pid), "/bin/ls"))
    assert following.parent is not None
    assert following.parent.id == SHELL
    assert (following.flags, following.binary) == (("execve", "rootcwd", "clone"), "/bin/ls")
    assert following.parent.children == 1


def test_an_unknown_parent_is_not_made_up() -> None:
    process = Life().apply(executed(ExecId(5, 5), "/bin/true", parent=ExecId(4, 4)))
    assert process.parent is None
    assert process.parent_id == ExecId(4, 4)


def test_the_end_of_an_unknown_process_is_reported_without_a_program() -> None:
    life = Life()
    process = life.apply(event("exit", ExecId(5, 5)))
    assert (process.binary, process.parent, len(life.table)) == (None, None, 0)


def test_a_parent_that_is_reported_later_is_found_for_earlier_children() -> None:
    life = Life()
    child = life.apply(event("running", ExecId(9, 9), SHELL, exe="/bin/ls", args=("ls",)))
    assert not child.in_init_tree
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",), container_pid=1))
    assert child.parent is not None
    assert child.parent.id == SHELL
    assert child.in_init_tree


def test_only_a_container_has_a_first_process() -> None:
    life = Life()
    assert life.apply(executed(SHELL, "/bin/sh", container_pid=1)).in_init_tree
    assert not life.apply(executed(ExecId(1, 1), "/sbin/init", container_pid=1), HOST).in_init_tree


def test_a_process_that_was_reported_twice_is_the_first_one() -> None:
    life = Life()
    first = life.apply(executed(SHELL, "/bin/sh"))
    assert life.apply(event("running", SHELL, exe="/bin/busybox", args=("sh",))) is first


def test_a_number_that_is_used_again_is_another_process() -> None:
    life = Life()
    one = life.apply(executed(ExecId(100, 7), "/bin/one"))
    life.apply(event("exit", one.id))
    other = life.apply(executed(ExecId(200, 7), "/bin/other"))
    assert (one.binary, one.has_ended, other.binary, other.has_ended) == ("/bin/one", True, "/bin/other", False)


def test_what_has_ended_is_found_for_a_while_and_then_forgotten() -> None:
    life = Life()
    identity = vi(life)
    life.apply(event("exit", identity))
    life.apply(executed(ExecId(3000, 12), "/bin/ls"), seconds=KEEP_NS / SECOND - 1)
    assert life.table.find(identity) is not None
    life.apply(executed(ExecId(3001, 13), "/bin/ls"), seconds=2)
    assert life.table.find(identity) is None


def test_a_child_holds_on_to_ancestors_that_were_forgotten() -> None:
    life = Life()
    identity = vi(life)
    life.apply(event("fork", ExecId(4000, 20), identity))
    life.apply(event("exit", identity))
    life.apply(event("exit", SHELL))
    life.apply(executed(ExecId(4001, 20), "/bin/ls", parent=ExecId(1, 1)), seconds=2 * KEEP_NS / SECOND)
    process = life.table.find(ExecId(4001, 20))
    assert process is not None
    assert [ancestor.binary for ancestor in process.ancestors()] == ["/usr/bin/vi", "/bin/sh"]
    assert life.table.find(identity) is None


def test_references_count_a_process_and_its_living_children() -> None:
    life = Life()
    identity = vi(life)
    shell = life.table.find(SHELL)
    assert shell is not None
    assert shell.references == 2
    life.apply(event("exit", SHELL))
    assert shell.references == 1
    life.apply(event("exit", identity))
    assert shell.references == 0


def test_no_more_than_so_many_are_held_and_those_that_ended_go_first() -> None:
    life = Life(most=13)
    for number in range(1, 14):
        life.apply(executed(ExecId(number, number), "/bin/true"), seconds=0)
    life.apply(event("exit", ExecId(7, 7)), seconds=0)
    life.apply(executed(ExecId(14, 14), "/bin/true"), seconds=0)
    assert (len(life.table), life.table.forgotten, life.table.find(ExecId(7, 7))) == (13, 0, None)
    life.apply(executed(ExecId(15, 15), "/bin/true"), seconds=0)
    assert (len(life.table), life.table.forgotten, life.table.find(ExecId(1, 1))) == (13, 1, None)


def test_a_line_of_processes_that_fork_and_end_does_not_grow_for_ever() -> None:
    life = Life()
    parent = SHELL
    life.apply(executed(SHELL, "/bin/sh"))
    for number in range(10 * MOST_ANCESTORS):
        child = ExecId(5000 + number, 100 + number)
        process = life.apply(event("fork", child, parent))
        life.apply(event("exit", parent))
        parent = child
    assert len(list(process.ancestors())) <= 2 * MOST_ANCESTORS


def test_sandboxes_whose_ends_are_never_reported_do_not_grow() -> None:
    life, sandbox = Life(), replace(XWING, kind="sandbox")
    life.apply(executed(SHELL, "/bin/sh", container_pid=1), seconds=0)
    for number in range(MOST_SANDBOXES + 10):
        life.apply(executed(ExecId(2000 + number, 20 + number), "/pause", container_pid=1), sandbox, seconds=0)
    assert len(life.table) == MOST_SANDBOXES + 1
    assert life.table.find(SHELL) is not None
    assert life.table.find(ExecId(2009, 29)) is None
    assert life.table.find(ExecId(2010, 30)) is not None
