"""Which hooks of a policy a recorded row stands for."""

from collections.abc import Sequence

import pytest

from kubectl_gadget.gadgets.load import load_gadget
from kubectl_gadget.observe.happening import RecordedCall
from kubectl_gadget.observe.recorded_callers import RecordedCaller
from kubectl_gadget.observe.recorded_policies import RecordedPolicies
from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions
from kubectl_gadget.policies.decisions.calls import Undecided
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.row_writer import RowWriter
from kubectl_gadget.wire.policy_events.exec_id import ExecId
from tests.observe.lives import NOON, SHELL, XWING, Life, executed

pytestmark = pytest.mark.usefixtures("catalogue_built")


def hooks_of_an_open(*policies: Sequence[str]) -> list[str]:
    """The system calls for which a row of trace open stands in these policies, each given by its calls."""
    texts = [
        f"apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {{name: p{number}}}\n"
        f"spec: {{kprobes: [{', '.join(f'{{call: {call}, syscall: true}}' for call in calls)}]}}"
        for number, calls in enumerate(policies)
    ]
    read = parse_policies([(f"{number}.yaml", text) for number, text in enumerate(texts)], "")
    compiled = CompiledPolicies(read, CompilerOptions())
    gadget = load_gadget("trace_open")
    writer = RowWriter(gadget.record)
    writer.add(b"", NOON, {"pid": 7, "tid": 7})
    batch = decode(gadget, "n1", writer.take())
    (found,) = RecordedPolicies(compiled, {"trace_process": {}, "trace_open": {}}).decoder("trace_open", None)(batch)
    calls = found if isinstance(found, Sequence) else [found]
    return [call.hook.hook.target for call in calls if isinstance(call, RecordedCall)]


def test_a_row_counts_for_the_first_call_that_a_policy_names_of_those_it_may_be() -> None:
    assert hooks_of_an_open(["sys_openat", "sys_open"]) == ["sys_openat"]
    assert hooks_of_an_open(["sys_open", "sys_openat"]) == ["sys_open"]
    assert hooks_of_an_open(["sys_openat"], ["sys_open"]) == ["sys_openat", "sys_open"]


def test_all_hooks_that_a_policy_has_at_that_call_get_the_row() -> None:
    assert hooks_of_an_open(["sys_openat", "sys_open", "sys_openat"]) == ["sys_openat"] * 2


def test_what_a_process_has_changed_is_not_known_until_its_next_program() -> None:
    life = Life()
    policies = RecordedPolicies(CompiledPolicies([], CompilerOptions()), {"trace_process": {}, "trace_privilege": {}})

    def caller() -> RecordedCaller:
        return RecordedCaller(life.table.current(SHELL.pid), life.table, XWING, lambda *_: True, True)

    life.apply(executed(SHELL, "/bin/sh"))
    change = RecordedCall(SHELL.pid, SHELL.pid, "sh", None, changes="capabilities")
    assert not list(policies.events(change, life.table, XWING, NOON))
    with pytest.raises(Undecided, match="capabilities, which the process has changed"):
        _ = caller().capabilities
    assert caller().namespaces
    life.apply(executed(ExecId(SHELL.started + 1, SHELL.pid), "/bin/ls"))
    assert caller().capabilities
