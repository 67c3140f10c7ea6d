"""Policies on rows: what rows decide, and what is said of the rest."""

from collections.abc import Mapping
from typing import Any

import pytest

from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions
from kubectl_gadget.policies.decisions.calls import Undecided
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.policies.recorded.recorded_hook import Recorded, RecordedHook, gaps, recorded_hooks
from tests.policies.model.known_process import Process

OPEN: Recorded = {"trace_process": {}, "trace_open": {}}
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: p}
spec:
  kprobes:
  - call: %s
    syscall: %s
    args: [%s]
    selectors: [%s]
"""
PATH, FLAGS, DESCRIPTOR = "{index: 1, type: string}", "{index: 2, type: int}", "{index: 0, type: fd}"
OF_PATH = "{matchArgs: [{args: [%d], operator: Equal, values: [/x]}]}"


class Row:
    """A row with these values; the others are not known."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getitem__(self, member: str) -> Any:
        if member not in self._values:
            raise Undecided(member)
        return self._values[member]

    def number(self, field: str) -> int:
        return int(self[field])

    def argument(self, position: int) -> Any:
        return self["arguments"][position]


def hooks(call: str, arguments: str, selectors: str, recorded: Recorded = OPEN) -> list[RecordedHook]:
    text = POLICY % (call, str(call.startswith("sys_")).lower(), arguments, selectors)
    return recorded_hooks(CompiledPolicies(parse_policies([("p.yaml", text)], ""), CompilerOptions()), recorded)


def decided(hook: RecordedHook, /, **row: Any) -> int | None:
    """The selector whose event there is."""
    found = hook.decide(Process(), Row(**row))
    return None if found is None else found[0].number


def said(call: str, arguments: str, selectors: str, recorded: Recorded) -> list[str]:
    return list(gaps(hooks(call, arguments, selectors, recorded), recorded))


def test_a_value_that_a_row_lacks_leaves_a_selector_open_unless_another_filter_excludes_it() -> None:
    both = "{matchArgs: [{args: [0], operator: Equal, values: [/x]}, {args: [1], operator: Equal, values: ['0']}]}"
    (hook,) = hooks("sys_openat", f"{PATH}, {FLAGS}", both)
    assert decided(hook, path="/x", flags=0) == 0
    assert decided(hook, path="/y") is None
    with pytest.raises(Undecided):
        decided(hook, path="/x")


def test_a_selector_that_is_open_hides_those_after_it() -> None:
    other = OF_PATH % 1
    (hook,) = hooks("sys_openat", f"{DESCRIPTOR}, {PATH}", f"{OF_PATH % 0}, {other}")
    with pytest.raises(Undecided):
        decided(hook, path="/x")
    (hook,) = hooks("sys_openat", f"{DESCRIPTOR}, {PATH}", f"{other}, {OF_PATH % 0}")
    assert decided(hook, path="/x") == 0


def test_a_number_is_read_in_the_type_of_the_argument() -> None:
    (hook,) = hooks("sys_openat", FLAGS, "{matchArgs: [{args: [0], operator: LT, values: ['0']}]}")
    assert decided(hook, flags=0xFFFFFFFF) == 0


@pytest.mark.parametrize(
    ("recorded", "text"),
    [
        (
            {"trace_process": {}},
            "has no calls of it, so no events are shown; trace syscalls or trace open would",
        ),
        ({**OPEN, "trace_open": {"failed": True}}, "trace open was recorded with --failed, so calls are missing"),
        ({**OPEN, "trace_open": {"runtime": None}}, "trace open was recorded without --runtime"),
        (OPEN, "trace open does not say by which call"),
        (OPEN, "selector 1: Equal of the fd at index 0 is not decided: trace open does not record it"),
    ],
)
def test_what_a_recording_cannot_decide_is_said(recorded: Recorded, text: str) -> None:
    found = said("sys_openat", DESCRIPTOR, OF_PATH % 0, recorded)
    assert any(text in line for line in found), found


def test_trace_syscalls_decides_any_call_exactly() -> None:
    recorded: Mapping[str, Mapping[str, Any]] = {"trace_process": {}, "trace_syscalls": {"syscalls": "read,openat"}}
    (hook,) = hooks("sys_openat", PATH, OF_PATH % 0, recorded)
    assert not list(gaps([hook], {**recorded, "trace_syscalls": {}}))
    assert decided(hook, arguments=[3, "/x"]) == 0
    (other,) = hooks("sys_open", "{index: 0, type: string}", OF_PATH % 0, recorded)
    assert other.place is None


def test_trace_lsm_decides_checks_of_the_hooks_that_it_was_recorded_with() -> None:
    recorded: Recorded = {"trace_process": {}, "trace_lsm": {"hook": "socket_connect, file_open"}}
    argument = "{index: 1, type: sockaddr_un}"
    selector = "{matchArgs: [{args: [0], operator: Postfix, values: [/docker.sock]}]}"
    (hook,) = hooks("security_socket_connect", argument, selector, recorded)
    row: dict[str, Any] = {"argument_1": 1, "name": "/run/docker.sock", "hook": "socket_connect"}
    assert decided(hook, **row) == 0
    assert decided(hook, **(row | {"name": "/run/other"})) is None
    inet: dict[str, Any] = {"argument_1": 2, "address": "10.0.0.1", "port": 80}
    assert decided(hook, **inet) is None
    assert hook.place is not None
    assert hook.place.source.where(Row(**row))
    assert not hook.place.source.where(Row(hook="socket_bind"))
    (other,) = hooks("security_bpf", "{index: 0, type: int}", OF_PATH.replace("/x", "'5'") % 0, recorded)
    assert other.place is None


def test_tests_without_values_are_said_to_be_undecided() -> None:
    types = "{matchArgs: [{index: 0, operator: FileType, values: [blk]}]}"
    recorded: Recorded = {"trace_process": {}, "trace_open": {"resolve": True}}
    found = said("security_file_open", "{index: 0, type: file}", types, recorded)
    assert any("FileType of the file at index 0 is not decided" in line for line in found)
    (hook,) = hooks("security_file_open", "{index: 0, type: file}", types, OPEN)
    assert hook.place is None
    assert "trace open --resolve would have them" in next(gaps([hook], OPEN))


def test_changes_of_namespaces_need_the_rows_that_have_them() -> None:
    changes = "{matchNamespaceChanges: [{operator: In, values: [Mnt]}]}"
    without = said("sys_openat", PATH, changes, OPEN)
    assert any("changes is not decided without trace privilege" in line for line in without)
    assert not any("privilege" in line for line in said("sys_openat", PATH, changes, {**OPEN, "trace_privilege": {}}))
