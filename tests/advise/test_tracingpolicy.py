"""TracingPolicies from facts, as the project's own reader understands them."""

from typing import Any

import pytest
import yaml

from kubectl_gadget.advise.documents import as_yaml
from kubectl_gadget.advise.tracingpolicy import tracing_policies
from kubectl_gadget.behavior.facts import USUAL_KINDS, Behavior, FactKind, Unit
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.behavior.made import behavior, fact
from tests.policies.oracle import ArgumentValue, Call, FileArgument, Process, matching

MULTICALL = ("busybox",)
PROGRAMS = (
    fact("program", "/bin/busybox sh", "(runtime)", evidence={"exe": "/bin/busybox"}),
    fact("program", "/srv/app.py", "/bin/busybox sh", evidence={"exe": "/usr/bin/python3.13"}),
)


def compared(hook: dict[str, Any], operator: str) -> list[str]:
    (selector,) = hook["selectors"]
    return [value for each in selector["matchArgs"] if each["operator"] == operator for value in each["values"]]


def test_programs_and_written_files_are_the_only_ones_that_are_not_reported() -> None:
    opens = (fact("open", "/srv/app.py", f"write {path}") for path in ("/data/<uuid>.db", "/data/x", "/log/*"))
    (document,) = tracing_policies(behavior(*PROGRAMS, *opens), MULTICALL)

    executed, opened = document.body["spec"]["kprobes"]
    assert compared(executed, "NotEqual") == ["/bin/busybox", "/srv/app.py", "/usr/bin/python3.13"]
    assert "/data/x" in compared(opened, "NotEqual")
    assert {"/data/", "/log/"} <= {*compared(opened, "NotPrefix")}
    assert executed["selectors"][0]["matchActions"] == [{"action": "Post"}]
    assert document.body["metadata"] == {"name": "deployment-cart-main", "namespace": "shop"}


def test_our_own_reader_accepts_it_without_a_note() -> None:
    (document,) = tracing_policies(behavior(*PROGRAMS, fact("open", "/bin/sh", "write /data/x")), MULTICALL, deny=True)

    (policy,) = parse_policies([("made.yaml", as_yaml([document]))], lambda: "shop")

    assert not policy.notes
    assert len(policy.hooks) == 2


def test_to_deny_is_asked_for() -> None:
    (document,) = tracing_policies(behavior(*PROGRAMS), MULTICALL, deny=True)

    for hook in document.body["spec"]["kprobes"]:
        assert hook["selectors"][0]["matchActions"] == [{"action": "Override", "argError": -1}]


def test_no_hook_is_for_every_path_when_names_have_nothing_in_common() -> None:
    only_hex = (fact("open", "/bin/sh", "write /<hex>"), fact("program", "/<n>", "(runtime)", evidence={"pid": 1}))

    assert tracing_policies(behavior(*only_hex), MULTICALL) == []


def test_hostile_names_stay_values() -> None:
    path = "/d/x\n      operator: NotPrefix"
    (document,) = tracing_policies(behavior(*PROGRAMS, fact("open", "/bin/sh", f"write {path}")), MULTICALL)

    assert any("cannot be written in a policy" in text for text in document.comments)
    assert yaml.safe_load(as_yaml([document])) == document.body


def test_only_containers_of_pods_can_be_selected() -> None:
    here = Unit(Workload(None, "Container", "web"), "web")

    assert tracing_policies(behavior(fact("program", "/bin/sh", "(runtime)", here), units=[here]), MULTICALL) == []


def test_what_was_not_looked_at_is_said() -> None:
    (document,) = tracing_policies(behavior(*PROGRAMS, kinds=USUAL_KINDS - {FactKind.OPEN}), MULTICALL)

    assert len(document.body["spec"]["kprobes"]) == 1
    assert any("not observed" in text for text in document.comments)


@pytest.mark.parametrize(
    ("path", "is_reported"),
    [
        ("/bin/busybox", False),
        ("/srv/app.py", False),
        ("/usr/bin/python3.13", False),
        ("/usr/lib/postgresql/17/bin/postgres", False),
        ("/tmp/kworker", True),
        ("/bin/busybox2", True),
        ("/memfd:x (deleted)", True),
    ],
)
@pytest.mark.parametrize("is_runtime", [False, True])
def test_a_program_is_reported_if_it_is_in_no_fact(path: str, is_reported: bool, is_runtime: bool) -> None:
    found = behavior(*PROGRAMS, fact("program", "/usr/lib/postgresql/<n>/bin/postgres", "(runtime)", evidence={"x": 1}))

    assert _is_reported(found, 0, is_runtime, FileArgument(path)) is (is_reported and not is_runtime)


@pytest.mark.parametrize(
    ("path", "mode", "is_reported"),
    [
        ("/data/x", 2, False),
        ("/log/a/b", 3, False),
        ("/log", 2, True),
        ("/etc/cron.d/x", 2, True),
        ("/etc/cron.d/x", 1, False),
        ("/dev/null", 3, False),
        ("/proc/7/comm", 2, False),
        ("/proc/sys/kernel/core_pattern", 2, True),
        ("/proc/sysrq-trigger", 2, True),
        ("/run/containerd/runc/k8s.io/0a1b/exec.fifo", 2, False),
        ("/d/*", 2, False),
        ("/d/y", 2, True),
    ],
)
def test_a_file_is_reported_if_it_is_opened_to_write_and_in_no_fact(path: str, mode: int, is_reported: bool) -> None:
    opens = (fact("open", "/srv/app.py", f"write {path}") for path in ("/data/x", "/log/*", r"/d/\*"))

    assert _is_reported(behavior(*PROGRAMS, *opens), 1, False, FileArgument(path), mode) is is_reported


def _is_reported(found: Behavior, number: int, is_runtime: bool, *values: ArgumentValue) -> bool:
    """True if the hook reports a call with these arguments, in the mount namespace of the node or of a container."""
    (document,) = tracing_policies(found, MULTICALL)
    (policy,) = parse_policies([("made.yaml", as_yaml([document]))], lambda: "shop")
    hook = policy.hooks[number]
    process = Process(namespaces={"mnt": 1 if is_runtime else 7}, host_namespaces={"mnt": 1})
    return bool(matching(hook, Call(process, dict(zip(hook.arguments, values, strict=True)))))
