"""What is new in one behavior compared with another."""

from dataclasses import replace

import pytest

from kubectl_gadget.behavior.comparison import ChangeKind, compare, doubts, paired
from kubectl_gadget.behavior.facts import ALREADY_RUNNING, RUNTIME, USUAL_KINDS, FactKind, Unit
from kubectl_gadget.behavior.risk import read_risks, risks
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Workload
from tests.behavior.made import CART, behavior, fact

CURL = fact("program", "/usr/bin/curl", "/bin/sh", images=("cart:1",))
SHELL = fact("program", "/bin/sh", "/bin/cart", images=("cart:1",))
LIBRARIES = fact("open", "/bin/sh", "read /usr/lib/python3/*")


def test_the_same_behavior_has_no_changes() -> None:
    both = behavior(CURL, SHELL, LIBRARIES)

    assert compare(both, both) == ()
    assert doubts(both, both) == ()


def test_counts_do_not_matter_unless_asked_for() -> None:
    before = behavior(fact("listen", "/bin/cart", "80/tcp", count=10))
    after = behavior(fact("listen", "/bin/cart", "80/tcp", count=95))

    assert compare(before, after) == ()
    (change,) = compare(before, after, count_factor=5)
    assert (change.kind, change.before, change.after) == (ChangeKind.COUNT, 10, 95)
    assert compare(before, after, count_factor=10) == ()


def test_the_most_serious_change_comes_first() -> None:
    new = [
        fact("open", "/bin/sh", "read /etc/hosts"),
        fact("open", "/bin/sh", "write /data/x"),
        fact("connect", "/bin/sh", "internet 203.0.113.0/24:4444/tcp"),
        CURL,
        fact("open", "/bin/sh", "read /root/.ssh/id_rsa"),
        fact("program", "/tmp/x", "/bin/sh"),
    ]

    changes = compare(behavior(SHELL), behavior(SHELL, *new))

    assert [change.risk.name for change in changes] == [
        "program in a writable place",
        "new program",
        "secret file",
        "connection outside",
        "file written",
        "file read",
    ]
    assert changes[0].techniques


def test_a_known_program_that_another_one_starts_is_not_a_new_program() -> None:
    bash = fact("program", "/bin/bash", "")

    (change,) = compare(behavior(CURL, bash), behavior(CURL, bash, fact("program", "/usr/bin/curl", "/bin/bash")))

    assert change.kind is ChangeKind.NEW
    assert change.risk.name == "known program, started by another one"


def test_a_known_program_that_was_already_running_is_not_new() -> None:
    running = fact("program", "/bin/sh", ALREADY_RUNNING)

    assert compare(behavior(SHELL), behavior(running)) == ()
    assert compare(behavior(running), behavior(fact("program", "/bin/sh", RUNTIME))) == ()
    # A web server's shell is no shell that ran before.
    (change,) = compare(behavior(running), behavior(running, SHELL))
    assert change.fact == SHELL


def test_an_unknown_program_that_was_already_running_is_new() -> None:
    (change,) = compare(behavior(SHELL), behavior(SHELL, fact("program", "/usr/bin/curl", ALREADY_RUNNING)))

    assert change.risk.name == "new program"


def test_a_pattern_of_the_old_side_covers_what_is_below_it() -> None:
    below = fact("open", "/bin/sh", "read /usr/lib/python3/json/decoder.py")

    assert compare(behavior(LIBRARIES), behavior(below)) == ()
    assert len(compare(behavior(LIBRARIES), behavior(fact("open", "/bin/sh", "write /usr/lib/python3/x")))) == 1 + 1
    assert len(compare(behavior(LIBRARIES), behavior(LIBRARIES, fact("open", "/bin/cart", "read /usr/lib/python3/x"))))


def test_a_pattern_is_not_new_where_the_old_side_was_just_below_the_threshold() -> None:
    few = [fact("open", "/bin/sh", f"read /usr/lib/python3/{number}") for number in range(6)]

    assert compare(behavior(*few), behavior(LIBRARIES)) == ()
    assert [change.kind for change in compare(behavior(few[0]), behavior(LIBRARIES))] == [ChangeKind.NEW]


def test_files_of_a_deep_directory_make_no_pattern_of_those_above_it_known() -> None:
    built = [fact("open", "/bin/sh", f"write /home/runner/work/repo/build/{name}.o") for name in "abcdef"]
    flooded = fact("open", "/bin/sh", "write /home/runner/*")

    (change,) = [c for c in compare(behavior(*built), behavior(flooded)) if c.kind is ChangeKind.NEW]

    assert change.fact == flooded


@pytest.mark.parametrize("value", ["write /home/me/.bashrc", "read /home/me/.ssh/x", "read /home/me/.npmrc"])
def test_no_pattern_of_a_directory_above_hides_a_serious_file(value: str) -> None:
    access, _, path = value.partition(" ")
    directory = fact("open", "/bin/sh", f"{access} /home/me/*")
    itself = fact("open", "/bin/sh", f"{access} {path.rpartition('/')[0]}/*")
    new = fact("open", "/bin/sh", value)

    assert [change.fact for change in compare(behavior(directory), behavior(directory, new))] == [new]
    if ".ssh" in value:
        assert compare(behavior(itself), behavior(itself, new)) == ()


def test_a_pattern_covers_no_program() -> None:
    baseline = behavior(SHELL, fact("open", "/bin/sh", "write /tmp/*"))
    stranger = fact("program", "/tmp/x", "/bin/sh")

    (change,) = compare(baseline, behavior(*baseline.facts, stranger))

    assert change.fact == stranger


def test_gone_is_said_only_where_both_sides_are_complete() -> None:
    lossy = {"complete_runs": 0, "incomplete": ("3 events were lost",)}

    assert [change.kind for change in compare(behavior(SHELL), behavior())] == [ChangeKind.GONE]
    assert compare(behavior(SHELL, **lossy), behavior()) == ()
    assert compare(behavior(SHELL), behavior(**lossy)) == ()
    assert doubts(behavior(SHELL), behavior(**lossy)) == ("shop/deployment/cart/main: 3 events were lost",)


def test_what_only_some_runs_of_the_old_side_have_is_never_gone() -> None:
    sometimes, of_each = fact("open", "/bin/sh", "read /etc/motd"), replace(SHELL, runs=2)
    two_runs = behavior(of_each, sometimes, runs=2, complete_runs=2)

    assert [change.fact for change in compare(two_runs, behavior())] == [SHELL]
    assert compare(two_runs, behavior(SHELL)) == ()


def test_what_an_incomplete_old_side_lacks_is_new_with_a_doubt() -> None:
    old = behavior(complete_runs=0, incomplete=("it ran before it was watched",))

    (change,) = compare(old, behavior(SHELL))

    assert change.doubt == "it ran before it was watched"
    assert doubts(old, behavior(SHELL)) == ("shop/deployment/cart/main: the old side: it ran before it was watched",)


def test_what_was_not_looked_at_is_neither_new_nor_gone() -> None:
    without = {"kinds": USUAL_KINDS - {FactKind.OPEN}}

    assert compare(behavior(**without), behavior(LIBRARIES)) == ()
    assert compare(behavior(LIBRARIES), behavior(**without)) == ()
    said = "shop/deployment/cart/main: the old side was not watched for: open"
    assert doubts(behavior(**without), behavior()) == (said,)


def test_another_image_is_said() -> None:
    before = behavior(SHELL, images=("cart:1",))

    (same,) = compare(before, behavior(SHELL, CURL, images=("cart:1",)))
    (other,) = compare(before, behavior(SHELL, fact("program", "/x", "", images=("cart:2",)), images=("cart:2",)))

    assert not same.other_image
    assert other.other_image


def test_a_container_that_the_old_side_does_not_have_is_new() -> None:
    sidecar = Unit(CART.workload, "sidecar")

    (change,) = compare(behavior(SHELL), behavior(SHELL, fact("program", "/x", "", sidecar), units=(CART, sidecar)))

    assert change.new_unit


def test_nothing_on_the_new_side_is_inconclusive() -> None:
    found = doubts(behavior(SHELL), behavior(units=()))

    assert found == ("shop/deployment/cart/main: did not run on the new side", "no container ran on the new side")


def test_single_workloads_with_other_names_are_compared() -> None:
    other = Unit(Workload("test", "Pod", "cart-7"), "main")
    old, new = behavior(SHELL), behavior(fact("program", "/bin/sh", "/bin/cart", other), units=(other,))

    assert compare(paired(old, new), new) == ()


def test_a_risk_fits_every_fact_of_each_kind() -> None:
    last = {kind: [risk for risk in risks() if kind in risk.kinds][-1] for kind in FactKind if kind != "program"}

    assert all(risk.program is risk.value is None for risk in last.values())


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{name: x, kinds: [open], level: error, valeu: a}", "risks[0].valeu is not known; did you mean value?"),
        ("{name: x, kinds: [opens], level: error}", "risks[0].kinds[0] 'opens' is not known; did you mean open?"),
        ("{name: x, kinds: [open], level: errors}", "risks[0].level 'errors' is not known; did you mean error?"),
        ("{name: x, kinds: [open], level: note, alone: 1}", "risks[0].alone must be true or false, not 1"),
        ("{name: x, kinds: [open]}", "risks[0] lacks level"),
        ("{name: x, kinds: [open], level: note, value: '('}", "risks[0].value is not a regular expression of RE2"),
    ],
)
def test_a_mistake_in_a_risk_has_its_place(rule: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_risks("f", f"risks:\n  - {rule}\n")
    assert str(caught.value).startswith("f:2:")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("open", "write /lib/x86_64-linux-gnu/libnss_evil.so.2"),
        ("open", "read /tmp/x/libevil.so"),
        ("change", "mode 4755 /srv/tool"),
        ("change", "mode 755 /usr/bin/tool"),
    ],
)
def test_no_pattern_covers_what_it_has_not_seen_where_each_name_counts(kind: str, value: str) -> None:
    how, _, path = value.rpartition(" ")
    directory = path.rpartition("/")[0]
    while directory:
        old = behavior(fact(kind, "/bin/cart", f"{how} {directory}/*"))
        new = behavior(fact(kind, "/bin/cart", value))
        assert [(change.fact.value, change.risk.level) for change in compare(old, new) if change.kind == "new"] == [
            (value, "error")
        ]
        directory = directory.rpartition("/")[0]


def test_a_new_version_of_a_dependency_says_from_which_one() -> None:
    old = behavior(fact("dependency", "", "python django 4.2.16"), fact("dependency", "", "python django"))
    new = behavior(fact("dependency", "", "python django 5.2"), fact("dependency", "", "python django"))

    (change,) = compare(old, new)

    assert change.says == "uses python django 4.2.16 → 5.2"


def test_a_new_dependency_is_new_though_a_pattern_covers_its_files() -> None:
    pattern = fact("open", "/bin/cart", "read /app/site-packages/*")
    old = behavior(pattern, fact("dependency", "", "python yaml"))
    new = behavior(pattern, fact("dependency", "", "python yaml"), fact("dependency", "", "python evil"))

    assert [change.says for change in compare(old, new)] == ["uses python evil"]


LIBRARY = "library libssl.so.3 sha256:"


def test_other_contents_of_a_library_are_new_and_say_what_was_there_before() -> None:
    old = behavior(fact("dependency", "", f"{LIBRARY}0a"), fact("dependency", "", "library libc.so.6 sha256:1c"))
    new = behavior(fact("dependency", "", f"{LIBRARY}0b"), fact("dependency", "", "library libc.so.6 sha256:1c"))

    (change,) = compare(old, new)

    assert change.says == "uses library libssl.so.3 sha256:0a → sha256:0b"
    assert change.risk.name == "contents of a library"


def test_contents_that_one_side_does_not_know_are_no_change() -> None:
    old, new = behavior(fact("exit", "/bin/cart", "code 1")), behavior(fact("exit", "/bin/cart", "code 1"))
    known = behavior(*old.facts, fact("dependency", "", f"{LIBRARY}0a"))

    assert (compare(old, known), compare(known, new)) == ((), ())


def test_a_library_that_a_known_program_loads_for_the_first_time_is_a_warning() -> None:
    old = behavior(fact("program", "/bin/cart", "(runtime)"), fact("open", "/bin/cart", "read /lib/libc.so.6"))
    new = behavior(*old.facts, fact("open", "/bin/cart", "read /lib/libnss_evil.so.2"))

    (change,) = compare(old, new)

    assert (change.risk.level, change.fact.value) == ("warning", "read /lib/libnss_evil.so.2")
