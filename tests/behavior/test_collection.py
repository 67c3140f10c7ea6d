"""Rows become facts."""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.behavior import collection, programs, row_facts
from kubectl_gadget.behavior.baseline import baseline_text, parse_baseline
from kubectl_gadget.behavior.collection import Collection, OpenedPaths, RunEnd, Sighting, Watched
from kubectl_gadget.behavior.comparison import compare
from kubectl_gadget.behavior.facts import Behavior, FactKind, WatchedRun
from kubectl_gadget.behavior.generalization import Generalizer, read_rules
from kubectl_gadget.behavior.row_facts import KINDS, RowFacts
from kubectl_gadget.kube.inventory import Inventory, Pod, Service
from tests.behavior.rows import Row, connects, execs, forks, opens, row

RULES = Generalizer(read_rules())
RUN = WatchedRun("2026-01-01T00:00:00Z", 60)
RUNTIME = [
    execs(8, "/memfd:runc_cloned:/proc/self/exe", "/usr/sbin/runc", "init"),
    forks(9, 8, "/memfd:runc_cloned:/proc/self/exe"),
    forks(10, 8, "/memfd:runc_cloned:/proc/self/exe"),
]
CART = [*RUNTIME, execs(10, "/bin/cart")]


def behavior(
    rows: Iterable[Row],
    inventory: Inventory | None = None,
    watched: Sequence[Watched] = (Watched(("shop", "cart-1", "main"), "cart:1", False),),
    events: Iterable[str] = tuple(KINDS),
    incomplete: tuple[str, ...] = (),
) -> Behavior:
    collection = Collection(RULES, events)
    collection.add(rows)
    return collection.behavior(RunEnd(inventory or Inventory(), watched, RUN, incomplete))


def said(rows: Iterable[Row], inventory: Inventory | None = None) -> list[str]:
    return [fact.says for fact in behavior(rows, inventory).facts]


def test_the_container_runtime_starts_the_first_program_and_does_nothing_itself() -> None:
    assert said([*CART, opens(9, "/etc/passwd")]) == ["(runtime) runs /bin/cart"]


def test_a_system_call_is_a_fact_of_its_program_and_not_of_the_runtime() -> None:
    calls = [row("syscalls", 9, syscall="setns"), row("syscalls", 10, syscall="i386/ptrace")]

    assert said([*CART, *calls]) == ["(runtime) runs /bin/cart", "/bin/cart calls i386/ptrace"]
    assert FactKind.SYSCALL not in {
        kind for each in behavior(CART, events=["process"]).coverage.values() for kind in each.kinds
    }


def test_a_program_of_the_image_that_is_named_like_a_runtime_is_a_program() -> None:
    found = said([*RUNTIME, execs(10, "/usr/bin/runc"), opens(10, "/etc/passwd")])

    assert found == ["(runtime) runs /usr/bin/runc", "/usr/bin/runc reads /etc/passwd"]


@pytest.mark.parametrize("exe", ["/memfd:runc", "/memfd:runc_cloned:/proc/self/exe", "/app/evil-runc"])
def test_no_name_of_a_file_in_an_image_makes_it_the_runtime(exe: str) -> None:
    found = said([*RUNTIME, execs(10, exe, links=1), opens(10, "/etc/passwd")])

    assert found == [f"(runtime) runs {exe}", f"{exe} reads /etc/passwd"]


def test_a_process_of_the_container_that_was_not_seen_is_no_runtime() -> None:
    cart = execs(10, "/bin/cart", ns_mnt=7)

    assert said([*RUNTIME, cart, execs(90, "/usr/bin/runc", ns_mnt=7)]) == [
        "(runtime) runs /bin/cart",
        "(runtime) runs /usr/bin/runc",
    ]
    assert said([*RUNTIME, cart, execs(90, "/usr/bin/runc", ns_mnt=1)]) == ["(runtime) runs /bin/cart"]


@pytest.mark.parametrize(("second", "is_runtime"), [("59", True), ("40", False)])
def test_a_runtime_that_has_run_for_long_is_a_program(second: str, is_runtime: bool) -> None:
    started, timestamp = f"2026-01-01T00:00:{second}.000000000Z", "2026-01-01T00:01:00.123456789Z"
    runc = execs(10, "/usr/bin/runc", operation="running", started=started, timestamp=timestamp)

    assert said([runc]) == ([] if is_runtime else ["already runs /usr/bin/runc"])


def test_a_script_that_is_named_by_way_of_a_link_keeps_that_name() -> None:
    path = "/proc/self/cwd/../../../app/run.sh"

    found = said([*RUNTIME, execs(10, "/bin/sh", path=path, interpreted=True, cwd="/tmp/a/b/c")])

    assert found == [f"(runtime) runs {path}"]


@pytest.mark.parametrize("comm", ["(runtime)", "/bin/cart"])
def test_where_no_processes_are_watched_none_can_name_itself_another_program(comm: str) -> None:
    found = behavior([opens(77, "/etc/passwd", comm=comm)], events=["open"])

    assert [fact.says for fact in found.facts] == [f"\\{comm} reads /etc/passwd"]


RUNS = execs(10, "/bin/cart", operation="running", started="2026-01-01T00:00:00.000000000Z", exec_id="a")


def at(second: int, made: Row) -> Row:
    return {**made, "timestamp": f"2026-01-01T00:00:{second:02}.000000000Z"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_row_is_joined_with_its_process_however_late_that_is_known(order: tuple[int, ...]) -> None:
    """A gadget is attached seconds before the rows of trace process come, and each row may be late."""
    rows = [at(1, connects(10, "127.0.0.1", 80)), at(5, RUNS), at(6, opens(10, "/etc/passwd"))]
    collection = Collection(RULES, KINDS)

    for place in order:
        collection.add([rows[place]])

    found = collection.behavior(RunEnd(Inventory(), (), RUN))
    assert [fact.says for fact in found.facts] == [
        "already runs /bin/cart",
        "/bin/cart connects to localhost:80/tcp",
        "/bin/cart reads /etc/passwd",
    ]


def test_what_a_process_did_before_the_exec_that_makes_it_known_is_not_judged() -> None:
    """Its program is unknown, and it is not the one that came after."""
    assert said([at(1, connects(10, "127.0.0.1", 80)), at(2, execs(10, "/bin/cart"))]) == ["(runtime) runs /bin/cart"]


def test_a_late_row_belongs_to_the_program_of_its_time() -> None:
    rows = [at(1, execs(10, "/bin/sh")), at(3, execs(10, "/bin/cart")), at(2, opens(10, "/etc/passwd"))]

    assert "/bin/sh reads /etc/passwd" in said(rows)


def test_a_row_with_the_identity_of_an_execution_belongs_to_no_other() -> None:
    """Between the row and the row that tells what the process runs, it has executed another program."""
    assert said([at(1, connects(10, "127.0.0.1", 80, exec_id="before")), at(5, RUNS)]) == ["already runs /bin/cart"]
    assert len(said([at(1, connects(10, "127.0.0.1", 80, exec_id="a")), at(5, RUNS)])) == 2


def test_a_process_that_is_found_running_after_its_exec_was_seen_has_not_executed_itself() -> None:
    cart = at(4, execs(10, "/bin/cart", exec_id="a"))

    assert said([at(2, execs(10, "/bin/sh", exec_id="b")), cart, at(5, RUNS)]) == [
        "/bin/sh runs /bin/cart",
        "(runtime) runs /bin/sh",
    ]


def test_events_of_processes_that_never_become_known_make_a_container_incomplete() -> None:
    (coverage,) = behavior([at(1, opens(77, "/etc/passwd"))]).coverage.values()

    assert coverage.incomplete == (collection.UNKNOWN_PROGRAM,)


def test_what_the_runtime_puts_into_a_container_and_ends_again_leaves_nothing_in_doubt() -> None:
    ends = row("process", 9, operation="exit", signal="", code=1, started="2026-01-01T00:00:01.000000000Z")
    found = behavior([at(1, opens(9, "/etc/passwd")), at(2, ends)])

    assert not found.facts
    assert [each.incomplete for each in found.coverage.values()] == [()]


def test_facts_begin_when_the_run_begins() -> None:
    """What was seen before only tells which programs were running already."""
    began: list[str] = []
    collected = Collection(RULES, KINDS, lambda: began[0] if began else None)
    collected.add([at(1, row_of) for row_of in [*CART, opens(10, "/etc/early"), execs(11, "/bin/ended")]])
    collected.add([at(2, row("process", 11, operation="exit", signal="SIGSEGV", code=-1))])
    collected.add([at(3, execs(12, "/bin/late")), at(4, connects(12, "127.0.0.1", 80))])
    began.append("2026-01-01T00:00:05.000000000Z")
    collected.add([at(4, opens(12, "/etc/early")), at(6, opens(12, "/etc/passwd")), at(7, execs(13, "/bin/sh"))])

    found = collected.behavior(RunEnd(Inventory(), (Watched(("shop", "cart-1", "main"), "cart:1", False),), RUN))

    assert [fact.says for fact in found.facts] == [
        "already runs /bin/cart",
        "already runs /bin/late",
        "(runtime) runs /bin/sh",
        "/bin/late reads /etc/passwd",
    ]
    assert [each.incomplete for each in found.coverage.values()] == [(collection.ALREADY_RUNNING,)]


def test_a_process_with_the_number_of_an_ended_one_stays_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_ENDED", 1)
    ends = [row("process", pid, operation="exit", signal="", code=0) for pid in (10, 11)]

    found = said([*CART, ends[0], execs(10, "/bin/new"), execs(11, "/bin/x"), ends[1], opens(10, "/etc/passwd")])

    assert "/bin/new reads /etc/passwd" in found


def test_a_program_is_started_by_the_one_that_its_process_ran_before() -> None:
    found = said(
        [*CART, forks(11, 10, "/bin/cart"), execs(11, "/bin/sh", ppid=10), execs(11, "/usr/bin/curl", ppid=10)]
    )

    assert found == ["(runtime) runs /bin/cart", "/bin/cart runs /bin/sh", "/bin/sh runs /usr/bin/curl"]


def test_applets_of_one_file_are_different_programs() -> None:
    found = said(
        [*RUNTIME, execs(10, "/bin/busybox", "/bin/sh", "-c", "x"), execs(10, "/bin/busybox", "busybox", "wget")]
    )

    assert found == ["(runtime) runs /bin/busybox sh", "/bin/busybox sh runs /bin/busybox wget"]


def test_a_script_is_the_program_and_not_its_interpreter() -> None:
    found = said([*RUNTIME, execs(10, "/bin/sh", path="./run.sh", interpreted=True, cwd="/srv")])

    assert found == ["(runtime) runs /srv/run.sh"]


def test_programs_that_ran_before_are_found_whatever_their_order() -> None:
    parent = {**execs(10, "/bin/cart"), "operation": "running"}
    worker = {**parent, "pid": 11, "ppid": 10}
    child = {**execs(12, "/bin/sh", ppid=11), "operation": "running"}

    for rows in ([child, worker, parent], [parent, worker, child]):
        assert said(rows) == ["already runs /bin/cart", "already runs /bin/sh"]


def test_what_starts_in_a_container_while_watching_begins_is_no_program_of_it() -> None:
    assert said([{**execs(10, "/usr/bin/runc"), "operation": "running"}, execs(10, "/bin/cart")]) == [
        "(runtime) runs /bin/cart"
    ]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (opens(10, "/data/x", 0o1), "/bin/cart writes /data/x"),
        (opens(10, "/data/x", 0o100), "/bin/cart writes /data/x"),
        (opens(10, "/data/x", 0o2000000), "/bin/cart reads /data/x"),
        (opens(10, "x/../conf"), "/bin/cart reads /srv/conf"),
        (opens(10, "link", resolved="/etc/shadow"), "/bin/cart reads /etc/shadow"),
        (opens(10, "/etc/x", errno=13), "/bin/cart is refused /etc/x"),
        (opens(10, "/root/.ssh/id_rsa", errno=2), "/bin/cart looks for /root/.ssh/id_rsa"),
        (row("bind", protocol="TCP", port=80, asked_port=80), "/bin/cart listens on 80/tcp"),
        (row("bind", protocol="TCP", port=40123, asked_port=0), "/bin/cart listens on <ephemeral>/tcp"),
        (row("capabilities", capability="CAP_NET_RAW"), "/bin/cart uses CAP_NET_RAW"),
        (row("capabilities", capability="CAP_SYS_ADMIN", errno=1), "/bin/cart is denied CAP_SYS_ADMIN"),
        (opens(10, "/srv/__pycache__/a.cpython-313.pyc"), "/bin/cart reads /srv/a.py"),
        (opens(10, "/srv/__pycache__/a.cpython-313.pyc.140", 0o1), "/bin/cart writes /srv/__pycache__/a.cpython.pyc"),
        (opens(10, "/tmp/order-akdNcI/x.json", 0o1), "/bin/cart writes /tmp/order-<random>/x.json"),
        (opens(10, "/tmp/setup.log", 0o1), "/bin/cart writes /tmp/setup.log"),
        (row("process", operation="exit", signal="SIGSEGV", code=-1), "/bin/cart ends with SIGSEGV"),
        (connects(10, "127.0.0.1", 6379), "/bin/cart connects to localhost:6379/tcp"),
        (connects(10, "8.8.8.8", 443), "/bin/cart connects to internet:443/tcp"),
        (connects(10, "10.1.2.3", 5432), "/bin/cart connects to network 10.1.2.0/24:5432/tcp"),
        (connects(10, "10.1.2.3", 53), "/bin/cart connects to DNS server:53/tcp"),
        (connects(10, "203.0.113.7", 53), "/bin/cart connects to network 203.0.113.0/24:53/tcp"),
        (connects(10, "169.254.169.254", 80), "/bin/cart connects to metadata service:80/tcp"),
    ],
)
def test_a_row_is_a_fact(made: Row, text: str) -> None:
    start = [*RUNTIME, execs(10, "/bin/cart", cwd="/srv")]

    assert said([*start, made]) == ["(runtime) runs /bin/cart", text]


def test_a_library_of_the_system_is_known_by_its_contents() -> None:
    path, other = "/usr/lib/x86_64-linux-gnu/libz.so.1.3.1", "/srv/libown.so.1"

    found = said([*CART, opens(10, path, sha256="0a" * 32), opens(10, path), opens(10, other, sha256="0b" * 32)])

    assert [text for text in found if "library" in text] == [f"uses library libz.so.1 sha256:{'0a' * 16}"]


EXCLUSIVE = 0o1 | 0o100 | 0o200


def changes(operation: str, path: str, **members: object) -> Row:
    return row("file", 10, operation=operation, path=path, **members)


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ([changes("chmod", "/srv/x", mode="4755")], ["/bin/cart sets mode 4755 /srv/x"]),
        ([changes("chmod", "/srv/x", mode="104755")], ["/bin/cart sets mode 4755 /srv/x"]),
        ([changes("chmod", "/srv/x", mode="0755")], ["/bin/cart sets mode 755 /srv/x"]),
        ([changes("chown", "/srv/x", owner=0, group=-1)], ["/bin/cart sets owner 0: /srv/x"]),
        (
            [changes("setxattr", "/srv/x", attribute="security.capability")],
            ["/bin/cart sets xattr security.capability /srv/x"],
        ),
        ([changes("setxattr", "/srv/x", attribute="user.mime")], []),
        ([changes("chmod", "/srv/x", mode="4755", errno=1)], []),
        ([changes("rename", "/tmp/x", to="/lib/libnss_evil.so.2")], ["/bin/cart writes /lib/libnss_evil.so.2"]),
        ([changes("symlink", "/etc/cron.d/a", to="/tmp/x")], ["/bin/cart writes /etc/cron.d/a"]),
        (
            [opens(10, "/srv/x", 0o102, mode="4755")],
            ["/bin/cart writes /srv/x", "/bin/cart sets mode 4755 /srv/x"],
        ),
    ],
)
def test_changes_of_files_are_facts(rows: list[Row], texts: list[str]) -> None:
    assert said([*CART, *rows]) == ["(runtime) runs /bin/cart", *texts]


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        ([changes("unlink", "/srv/q7x.upload.txt")], ["write /srv/<tmp>.txt"]),
        ([changes("unlink", "/srv/other")], ["write /srv/q7x.upload.txt"]),
        (
            [
                changes("chmod", "/srv/q7x.upload.txt", mode="4755"),
                changes("rename", "/srv/q7x.upload.txt", to="/srv/a"),
            ],
            ["write /srv/<tmp>.txt", "write /srv/a", "mode 4755 /srv/a", "mode 4755 /srv/q7x.upload.txt"],
        ),
        ([], ["write /srv/q7x.upload.txt"]),
    ],
)
def test_a_name_that_a_program_made_and_took_away_is_temporary(rows: list[Row], values: list[str]) -> None:
    found = behavior([*CART, opens(10, "/srv/q7x.upload.txt", EXCLUSIVE), *rows])

    assert [fact.value for fact in found.facts if fact.kind in ("open", "change")] == values


def test_a_name_in_a_chroot_is_the_one_that_the_kernel_resolved() -> None:
    root, name = "/srv/root", "/var/lib/.stateNbXq.tmp"
    found = behavior(
        [
            *CART,
            opens(10, name, EXCLUSIVE, resolved=f"{root}{name}"),
            changes("chmod", name, mode="0600"),
            changes("rename", name, to="/var/lib/state"),
        ]
    )

    assert [fact.value for fact in found.facts if fact.kind in ("open", "change")] == [
        "write /srv/root/var/lib/<tmp>.tmp",
        "write /srv/root/var/lib/state",
        "write /var/lib/state",
        "mode 600 /var/lib/<tmp>.tmp",
        "mode 600 /var/lib/state",
    ]


def test_what_is_done_in_a_directory_that_was_made_in_a_chroot_has_its_temporary_name() -> None:
    root, name = "/srv/root", "/tmp/dpkg-kqz"
    made = [changes("mkdir", name, mode="0700"), opens(10, f"{name}/a.deb", EXCLUSIVE, resolved=f"{root}{name}/a.deb")]
    found = behavior([*CART, *made, opens(10, name, 0, resolved=f"{root}{name}"), changes("rmdir", name)])

    assert "read /srv/root/tmp/<tmp>" in [fact.value for fact in found.facts]


def _with_names(*names: str, left: int = 0) -> list[str]:
    """The values of files that were made with O_CREAT only, and removed but for the last ones."""
    rows = [opens(10, name, 0o101) for name in names]
    found = behavior([*CART, *rows, *(changes("unlink", name) for name in names[: len(names) - left])])
    return [fact.value for fact in found.facts if fact.kind == "open"]


def test_names_that_may_have_existed_are_temporary_if_several_alike_are_removed() -> None:
    tables = [f"/srv/#sql-{name}-x.MAI" for name in ("kq", "wz", "pj", "vx")]

    assert _with_names(*tables) == ["write /srv/<tmp>"]
    assert _with_names(*tables[:2]) == [f"write {name}" for name in sorted(tables[:2])]
    assert _with_names(*tables, left=1) == [f"write {tables[3]}", "write /srv/<tmp>"]


def test_names_of_several_kinds_that_may_have_existed_stay() -> None:
    names = [f"/srv/{name}" for name in ("cart.db-shm", "cart.db-wal", "cart.pid", "cart.sock.lock", "start")]

    assert _with_names(*names) == [f"write {name}" for name in names]


def test_the_new_names_of_several_files_are_temporary_if_these_are_removed() -> None:
    rows = list[Row]()
    for name in ("Qzk-1", "Wxj-2", "Pvf-3"):
        rows += [opens(10, f"/srv/hdr.{name}", EXCLUSIVE), changes("chmod", f"/srv/hdr.{name}", mode="0640")]
        rows += [changes("rename", f"/srv/hdr.{name}", to=f"/srv/{name}"), changes("unlink", f"/srv/{name}")]
    found = behavior([*CART, *rows])

    assert [fact.value for fact in found.facts[1:]] == ["write /srv/<tmp>", "mode 640 /srv/<tmp>"]


def test_unsure_names_in_a_directory_that_is_removed_have_its_temporary_name() -> None:
    rows = [changes("mkdir", "/srv/wqnhj"), *(opens(10, f"/srv/wqnhj/{name}", 0o101) for name in ("a", "b.c"))]
    gone = [*(changes("unlink", f"/srv/wqnhj/{name}") for name in ("a", "b.c")), changes("rmdir", "/srv/wqnhj")]

    assert [fact.value for fact in behavior([*CART, *rows, *gone]).facts[1:]] == [
        "write /srv/<tmp>/a",
        "write /srv/<tmp>/b.c",
    ]


def test_unsure_names_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_facts, "MOST_HELD", 40)
    rows = list[Row]()
    for number in range(200):
        name = f"/srv/f{number % 50}/x"
        rows += [opens(10, name, 0o101), changes("unlink", name), opens(10, f"{name}{number}", 0o101)]
    facts = RowFacts(RULES, lambda *_: None)
    facts.add([*CART, *rows])
    made = facts._made[("shop", "cart-1", "main")]

    assert made.size <= 40


def test_a_name_that_is_renamed_is_temporary_in_a_directory_that_is_removed_too() -> None:
    found = behavior(
        [
            *CART,
            changes("mkdir", "/srv/wqnhj", mode="0700"),
            opens(10, "/srv/wqnhj/RECORDckvsy.tmp", EXCLUSIVE),
            opens(10, "/srv/wqnhj/names", EXCLUSIVE),
            changes("rename", "/srv/wqnhj/RECORDckvsy.tmp", to="/srv/wqnhj/RECORD"),
            *(changes("unlink", f"/srv/wqnhj/{name}") for name in ("RECORD", "names")),
            changes("rmdir", "/srv/wqnhj"),
        ]
    )

    assert [fact.value for fact in found.facts if fact.kind == "open"] == [
        "write /srv/<tmp>/<tmp>.tmp",
        "write /srv/<tmp>/RECORD",
        "write /srv/<tmp>/names",
    ]


def test_a_private_directory_that_is_removed_is_temporary_and_what_is_in_it() -> None:
    made = [changes("mkdir", "/srv/wqnhj", mode="0700"), opens(10, "/srv/wqnhj/a/b.c", 0o101)]
    gone = [changes("unlink", "/srv/wqnhj/a/b.c"), changes("rmdir", "/srv/wqnhj")]
    found = behavior([*CART, *made, changes("chmod", "/srv/wqnhj", mode="0755"), *gone])

    assert [fact.value for fact in found.facts[1:]] == ["write /srv/<tmp>/a/b.c", "mode 755 /srv/<tmp>"]


def test_a_directory_of_any_mode_is_temporary_and_of_several_the_first_that_is_removed() -> None:
    kept, outer, inner = "/srv/target", "/srv/target/rmetaqzx", "/srv/target/rmetaqzx/deps"
    rows = [changes("mkdir", name, mode="0777") for name in (kept, outer, inner)]
    rows += [opens(10, f"{inner}/full.rmeta", 0o101), opens(10, f"{kept}/lib.a", 0o101)]
    rows += [changes("unlink", f"{inner}/full.rmeta")]
    found = behavior([*CART, *rows, *(changes("rmdir", name) for name in (inner, outer))])

    assert [fact.value for fact in found.facts[1:]] == [
        "write /srv/target/<tmp>/deps/full.rmeta",
        "write /srv/target/lib.a",
    ]


def test_a_directory_that_is_renamed_takes_what_was_made_in_it_along() -> None:
    rows = [changes("mkdir", "/srv/s-qzx-working", mode="0777"), opens(10, "/srv/s-qzx-working/a.o", EXCLUSIVE)]
    found = behavior([*CART, *rows, changes("rename", "/srv/s-qzx-working", to="/srv/final")])

    assert [fact.value for fact in found.facts[1:]] == [
        "write /srv/<tmp>/a.o",
        "write /srv/final",
        "write /srv/final/a.o",
    ]


_OLD, _NEW = "/srv/runs/run-qz", "/srv/runs/garbage-wx"


def _removed(new: str = _NEW) -> list[Row]:
    """A directory of an earlier run gets another name, and is removed with what is in it, as pytest does."""
    return [
        opens(10, f"{_OLD}/.lock", EXCLUSIVE),
        changes("rename", _OLD, to=new),
        opens(10, new),
        changes("unlink", f"{new}/.lock"),
        opens(10, f"{new}/orders"),
        opens(10, f"{new}/orders/tea.json"),
        changes("chmod", f"{new}/orders", mode="0700"),
        changes("unlink", f"{new}/orders/tea.json"),
        changes("rmdir", f"{new}/orders"),
        changes("rmdir", new),
    ]


def _paths(rows: Sequence[Row]) -> list[str]:
    return [fact.value for fact in behavior([*CART, *rows]).facts if fact.kind in ("open", "change")]


def test_a_directory_that_gets_another_name_and_is_removed_is_only_removed() -> None:
    assert sorted(_paths(_removed())) == [
        "mode 700 /srv/runs/<removed>",
        "read /srv/runs/<removed>",
        f"read {_OLD}/orders/tea.json",
        "write /srv/runs/<removed>",
        f"write {_OLD}/<tmp>.lock",
    ]


def test_the_removal_of_a_renamed_directory_is_not_new() -> None:
    rest = [opens(10, f"{_OLD}/orders/tea.json"), opens(10, f"{_OLD}/.lock", EXCLUSIVE)]
    before = behavior([*CART, *rest, changes("unlink", f"{_OLD}/.lock")])
    after = behavior([*CART, *rest, changes("unlink", f"{_OLD}/.lock"), *_removed()])

    assert compare(before, after) == compare(after, before) == ()


def test_a_directory_that_gets_another_name_and_stays_has_that_name() -> None:
    assert f"write {_NEW}" in _paths(_removed()[:-1])
    assert f"read {_NEW}/orders" in _paths(_removed()[:-1])


@pytest.mark.parametrize("name", ["/usr/lib/wx", "/etc/cron.d/wx", "/root/.ssh/wx"])
def test_a_new_name_of_a_directory_stays_where_each_name_counts(name: str) -> None:
    assert f"write {name}" in _paths(_removed(name))


def test_a_file_that_gets_another_name_and_is_removed_has_that_name() -> None:
    assert _paths([changes("rename", "/srv/a", to="/srv/b"), changes("unlink", "/srv/b")]) == ["write /srv/b"]


def test_a_file_in_a_directory_that_has_the_name_of_a_renamed_one_is_not_temporary() -> None:
    again = [changes("mkdir", _OLD), opens(10, f"{_OLD}/.lock", EXCLUSIVE), changes("unlink", f"{_NEW}/.lock")]

    assert f"write {_OLD}/.lock" in _paths([changes("rename", _OLD, to=_NEW), *again])


def test_a_directory_that_was_made_and_renamed_has_a_temporary_name_if_it_is_removed() -> None:
    made = [
        changes("mkdir", "/srv/qz"),
        opens(10, "/srv/qz/a.o", EXCLUSIVE),
        changes("rename", "/srv/qz", to="/srv/wx"),
    ]
    gone = [changes("unlink", "/srv/wx/a.o"), changes("rmdir", "/srv/wx")]

    assert set(_paths([*made, *gone])) == {"write /srv/<tmp>", "write /srv/<tmp>/a.o"}


@pytest.mark.parametrize(
    ("folder", "mode", "program"),
    [
        ("/tmp/go-build3772641934", "0700", "/tmp/go-<random>/b183/prices.test"),
        ("/tmp/go-build3772641934", "0755", "/tmp/go-build3772641934/b183/prices.test"),
        ("/srv/tools", "0700", "/srv/tools/b183/prices.test"),
    ],
)
def test_a_program_in_a_directory_of_mkdtemp_is_known_without_its_random_name(
    folder: str, mode: str, program: str
) -> None:
    made = [changes("mkdir", folder, mode=mode), changes("mkdir", f"{folder}/b183", mode="0777")]
    found = behavior([*CART, *made, execs(11, f"{folder}/b183/prices.test", ppid=10), opens(11, "/srv/x", 0o101)])

    assert [(fact.kind, fact.program) for fact in found.facts if fact.program == program] == [
        ("program", program),
        ("open", program),
    ]


def test_an_address_has_the_name_that_the_same_process_asked_for() -> None:
    asked = {"role": "client", "rcode": "NOERROR", "addresses": ["151.101.2.132"], "server": "10.0.0.1", "client": "::"}
    rows = [execs(pid, "/bin/http", ppid=10) for pid in (11, 12)]
    rows += [row("dns", pid, name=f"{name}.example.", **asked) for pid, name in ((11, "deb"), (12, "security"))]
    found = behavior([*CART, *rows, connects(11, "151.101.2.132", 80), connects(13, "151.101.2.132", 443)])
    values = [fact.value for fact in found.facts if fact.kind == "connect"]

    assert "name deb.example:80/tcp" in values


def test_a_name_in_a_folder_of_the_system_is_never_temporary() -> None:
    path = "/usr/lib/x86_64-linux-gnu/libevil.so.2"
    found = behavior([*CART, opens(10, path, EXCLUSIVE), changes("unlink", path)])

    assert [fact.value for fact in found.facts if fact.kind == "open"] == [f"write {path}"]


def test_more_made_names_than_are_held_are_told_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_facts, "MOST_HELD", 4)  # each name, and its use
    names = [f"/srv/abc{letter}" for letter in "pqr"]
    rows = [*(opens(10, name, EXCLUSIVE) for name in names), *(changes("unlink", name) for name in names)]
    found = behavior([*CART, *rows])

    assert [fact.value for fact in found.facts if fact.kind == "open"] == ["write /srv/<tmp>", "write /srv/abcp"]


def test_a_port_that_the_kernel_has_chosen_is_ephemeral_when_it_is_asked_for_again() -> None:
    rows = [
        row("bind", protocol="TCP", port=20123, asked_port=0),
        row("bind", protocol="TCP", port=20123, asked_port=20123),
        row("bind", protocol="TCP", port=80, asked_port=80),
    ]

    assert said([*CART, *rows])[1:] == ["/bin/cart listens on 80/tcp", "/bin/cart listens on <ephemeral>/tcp"]


@pytest.mark.parametrize(
    ("args", "program"),
    [
        (["python3", "setup.py", "build"], "/usr/bin/python3 /srv/setup.py"),
        (["python3", "-W", "error", "-Im", "pip", "install"], "/usr/bin/python3 -m pip"),
        (["python3", "-c", "import os"], "/usr/bin/python3 -c"),
        (["sh", "-ec", "make"], "/usr/bin/python3 -c"),
        (["java", "-Xmx1g", "-jar", "/app/a.jar"], "/usr/bin/python3 -jar /app/a.jar"),
        (["python3"], "/usr/bin/python3"),
    ],
)
def test_scripts_of_one_interpreter_are_different_programs(args: list[str], program: str) -> None:
    assert said([*RUNTIME, execs(10, "/usr/bin/python3", *args, cwd="/srv")]) == [f"(runtime) runs {program}"]


@pytest.mark.parametrize(
    "made",
    [
        opens(10, "/none", errno=2),
        row("bind", protocol="TCP", port=80, asked_port=80, errno=98),
        row("process", operation="exit", signal="", code=0),
        opens(10, "/x", container="POD"),
        {**opens(10, "/x"), "container": ""},
    ],
)
def test_what_says_nothing_about_a_workload_is_no_fact(made: Row) -> None:
    assert said([*CART, made]) == said(CART)


def test_a_change_of_users_is_a_fact_and_a_call_that_changes_nothing_is_not() -> None:
    same = {"old_uid": 0, "new_uid": 0, "old_euid": 0, "new_euid": 0, "old_egid": 0, "new_egid": 0}
    caps = {"old_capabilities": "CAP_SETUID", "new_capabilities": "CAP_SETUID", "namespaces": "", "request": ""}
    call = row("privilege", operation="setuid", **same, **caps)

    assert said([*CART, call]) == said(CART)
    changed = {**call, "new_uid": 103, "new_euid": 103, "new_capabilities": "none"}
    assert "/bin/cart changes privileges: setuid user 0 to 103" in said([*CART, changed])


def test_other_ends_have_names_of_the_cluster_before_names_of_dns() -> None:
    answer = row("dns", role="client", rcode="NOERROR", name="db.example.com.", addresses=["10.9.9.9", "5.6.7.8"])
    labels = {"pod-template-hash": "7c9d5b8f6d"}
    redis = Pod("shop", "redis-7c9d5b8f6d-x2x4z", "u1", labels, ("10.9.9.9",))
    redis = replace(redis, owner_kind="ReplicaSet", owner_name="redis-7c9d5b8f6d")
    known = Inventory([redis], [Service("shop", "api", ("10.96.0.7",))])
    ends = [connects(10, "10.9.9.9", 6379), connects(10, "10.96.0.7", 80), connects(10, "5.6.7.8", 443)]

    found = said([*CART, answer, *ends], known)

    assert "/bin/cart connects to workload shop/deployment/redis:6379/tcp" in found
    assert "/bin/cart connects to service shop/api:80/tcp" in found
    assert "/bin/cart connects to name db.example.com:443/tcp" in found


def test_pods_of_the_run_are_known_by_the_addresses_that_they_use() -> None:
    redis = connects(90, "10.0.0.1", 53, pod="redis-0", local="10.9.9.9")

    assert "/bin/cart connects to workload shop/pod/redis:6379/tcp" in said(
        [*CART, connects(10, "10.9.9.9", 6379), redis]
    )


def test_attempts_with_domains_of_the_search_list_are_no_facts() -> None:
    def asked(name: str, rcode: str) -> Row:
        return row("dns", role="client", rcode=rcode, name=name, addresses=[])

    found = said(
        [
            *CART,
            asked("api.example.com.shop.svc.cluster.local", "NXDOMAIN"),
            asked("api.example.com", "NOERROR"),
            asked("evil.example.net", "NXDOMAIN"),
        ]
    )

    assert [text for text in found if "resolves" in text] == [
        "/bin/cart resolves api.example.com",
        "/bin/cart resolves evil.example.net",
    ]


def test_data_in_names_that_do_not_exist_is_a_fact() -> None:
    names = ["redis", *(f"redis.secret{number}.evil.example" for number in range(10))]
    rows = [row("dns", role="client", rcode="NXDOMAIN", name=name, addresses=[]) for name in names]
    few = [row("dns", role="client", rcode="NXDOMAIN", name=f"redis.{name}", addresses=[]) for name in ("a", "b.c")]

    assert sum("evil.example" in text for text in said([*CART, *rows])) == 10
    assert [text for text in said([*CART, rows[0], *few]) if "resolves" in text] == ["/bin/cart resolves redis"]


def _answer(name: str, address: str, server: str) -> Row:
    ends = {"server": server, "client": "10.0.0.9"}
    return row("dns", role="client", rcode="NOERROR", name=name, addresses=[address], **ends)


@pytest.mark.parametrize("server", ["127.0.0.1", "10.0.0.9"])
@pytest.mark.parametrize(
    "serves",
    [
        row("bind", 11, protocol="UDP", port=53, asked_port=53),
        row("dns", 11, role="server", container="side", name="x"),
    ],
)
def test_a_pod_cannot_answer_itself_what_an_address_is_named(server: str, serves: Row) -> None:
    forged, connect = _answer("api.example.com", "5.6.7.8", server), connects(10, "5.6.7.8", 443)

    assert "/bin/cart connects to internet:443/tcp" in said([*CART, serves, forged, connect])
    # That of the machine or of the runtime is no container of the pod.
    assert "/bin/cart connects to name api.example.com:443/tcp" in said([*CART, forged, connect])


def test_no_service_of_the_cluster_is_outside() -> None:
    answers = [
        _answer("redis.shop.svc.cluster.local", address, "10.96.0.10") for address in ("66.66.66.66", "10.7.7.7")
    ]

    found = said([*CART, *answers, connects(10, "66.66.66.66", 6379), connects(10, "10.7.7.7", 6379)])

    assert "/bin/cart connects to internet:6379/tcp" in found
    assert "/bin/cart connects to service shop/redis:6379/tcp" in found


def test_a_name_that_is_not_utf8_is_a_fact_like_any_other() -> None:
    bad = "/srv/a\udcff"
    named = row("dns", role="client", rcode="NOERROR", name="a\udcff.example", addresses=["5.6.7.8"])
    rows = [opens(10, bad, 0o1), named, connects(10, "5.6.7.8", 443), execs(10, bad)]

    found = behavior([*CART, *rows, *(opens(10, f"/srv/d/{n}\udcfe", 0o1) for n in "abcdefghijklmnop")])

    assert "/bin/cart runs /srv/a\\xff" in [fact.says for fact in found.facts]
    assert "/bin/cart resolves a\\xff.example" in [fact.says for fact in found.facts]
    assert parse_baseline("b.yaml", baseline_text(found)).behavior.facts == found.facts
    assert compare(behavior(CART), found)[0].fact.program == "/srv/a\\xff"


def test_replicas_are_one_container_of_one_workload() -> None:
    pods = ("cart-7c9d5b8f6d-x2x4z", "cart-7c9d5b8f6d-z4z2x")
    rows = [{**made, "pod": pod} for pod in pods for made in CART]
    rows.append({**opens(10, "/data/x"), "pod": pods[0]})
    watched = [Watched(("shop", pod, "main"), "cart:1", False) for pod in pods]

    found = behavior(rows, watched=watched)

    ((unit, coverage),) = found.coverage.items()
    assert (unit.workload.name, coverage.pods) == ("cart", 2)
    assert [(fact.kind, fact.pods, fact.runs) for fact in found.facts] == [
        (FactKind.PROGRAM, 2, 1),
        (FactKind.OPEN, 1, 1),
    ]


def test_order_and_number_of_events_do_not_matter() -> None:
    rows = [opens(10, f"/srv/app/{name}/{file}") for name in "abcdefghijklmnop" for file in "xyz"]
    rows += [connects(10, f"8.8.8.{number}", 443) for number in range(20)]
    other = [*rows, *rows[::3]]
    random.Random(1).shuffle(other)

    one, two = behavior([*CART, *rows]), behavior([*CART, *other])

    assert one.facts == two.facts
    assert compare(one, two) == compare(two, one) == ()


def test_only_kinds_whose_gadgets_ran_were_looked_at() -> None:
    found = behavior(CART, events=("process", "dns", "sni"))

    assert next(iter(found.coverage.values())).kinds == {FactKind.PROGRAM, FactKind.EXIT, FactKind.RESOLVE}


def test_a_container_that_ran_before_is_incomplete_until_another_of_it_begins() -> None:
    late = Watched(("shop", "cart-1", "main"), "", True)
    begun = Watched(("shop", "cart-2", "main"), "", False)

    assert next(iter(behavior(CART, watched=[late]).coverage.values())).has_gaps
    assert not next(iter(behavior(CART, watched=[late, begun]).coverage.values())).has_gaps


def test_losses_make_every_container_incomplete() -> None:
    (coverage,) = behavior(CART, incomplete=("events were lost",)).coverage.values()

    assert (coverage.complete_runs, coverage.incomplete) == (0, ("events were lost",))


def test_a_flood_of_different_things_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "MOST_FACTS", 200)
    names = ({**row("dns", role="client", rcode="NOERROR", addresses=[]), "name": f"x{n}x.example"} for n in range(250))

    found = behavior([*CART, *names])

    assert 100 < len(found.facts) <= 200
    assert "more than 200 different things" in next(iter(found.coverage.values())).incomplete[0]


def test_evidence_is_the_first_row() -> None:
    late = opens(10, "/data/x", timestamp="2026-01-01T00:00:09.000000000Z")
    early = opens(10, "/data/x", timestamp="2026-01-01T00:00:02.000000000Z")

    (fact,) = (f for f in behavior([*CART, early, late]).facts if f.kind is FactKind.OPEN)

    assert (fact.first_seen, fact.evidence["pod"], fact.images) == (early["timestamp"], "cart-1", ("cart:1",))


# Directories in which many names are opened.


GENERALIZER = Generalizer(read_rules())
MANY = [f"/app/lib/{name}" for name in "abcdefghijklm"]
_PATHS = st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=4), min_size=1, max_size=60)


def opened(paths: list[str]) -> dict[str, int]:
    found = OpenedPaths(GENERALIZER)
    for path in paths:
        found.add(path, Sighting("2026", {}, frozenset({"pod"})))
    return {path: seen.count for path, seen in found}


def test_few_names_stay() -> None:
    assert opened(MANY[:12]) == dict.fromkeys(MANY[:12], 1)


def test_many_names_become_one_pattern_with_what_was_seen_of_all() -> None:
    assert opened([*MANY, "/app/lib/x/y/z", "/app/other"]) == {"/app/lib/*": 14, "/app/other": 1}


@given(_PATHS, st.randoms(use_true_random=False))
def test_the_order_of_opens_does_not_matter(parts: list[list[str]], shuffle: random.Random) -> None:
    paths = ["/app/" + "/".join(names) for names in parts]
    other = list(paths)
    shuffle.shuffle(other)

    assert opened(paths) == opened(other)


@given(_PATHS, st.integers(0, 60))
def test_pods_together_give_what_one_pod_would(parts: list[list[str]], first: int) -> None:
    paths = ["/app/" + "/".join(names) for names in parts]
    together = OpenedPaths(GENERALIZER)
    for some in (paths[:first], paths[first:]):
        for path, count in opened(some).items():
            together.add(path, Sighting("2026", {}, frozenset(), count=count))

    assert {path: seen.count for path, seen in together} == opened(paths)


def test_directories_that_matter_never_become_a_pattern() -> None:
    names = [f"/etc/{name}" for name in "abcdefghijklmnopqrst"]

    assert opened(names) == dict.fromkeys(names, 1)


def test_a_sensitive_file_stays_beside_the_pattern() -> None:
    secret = "/home/me/work/.ssh/id_rsa"

    assert secret in opened([*(f"/home/me/work/{name}" for name in range(40)), secret])


def test_a_file_that_starts_something_stays_beside_the_pattern() -> None:
    found = OpenedPaths(GENERALIZER, "write")
    for path in (*(f"/home/me/{name}" for name in range(40)), "/home/me/.bashrc"):
        found.add(path, Sighting("2026", {}, frozenset()))

    assert {path for path, _ in found} == {"/home/me/*", "/home/me/.bashrc"}


def test_a_directory_that_became_a_pattern_may_be_opened_itself() -> None:
    assert opened(["/app/lib", *MANY]) == opened([*MANY, "/app/lib"]) == {"/app/lib": 1, "/app/lib/*": 13}


def test_a_relative_path_is_below_no_directory_that_was_made() -> None:
    rows = [changes("mkdir", "/srv/x", mode="0777"), changes("rename", "/srv/y", to="name")]

    assert [fact.value for fact in behavior([*CART, *rows]).facts[1:]] == ["write name"]
