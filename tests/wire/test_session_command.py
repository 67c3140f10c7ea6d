"""The command of a session: one spelling for each meaning, and what of a RUN counts as enforcing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.cluster.agents import manifests
from kubectl_gadget.cluster.options import AgentOptions
from kubectl_gadget.wire.session_command import MOST_GADGETS, SessionCommand, declared_name, enforces

NAMES = st.lists(st.from_regex(r"(own:)?[a-z][a-z0-9_]{0,20}", fullmatch=True), max_size=MOST_GADGETS)
NAMESPACES = st.none() | st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(NAMES, st.booleans(), NAMESPACES)
def test_what_is_written_is_read_again(names: list[str], enforcing: bool, namespace: str | None) -> None:
    command = SessionCommand(tuple(names), enforcing, False, namespace)
    assert SessionCommand.parse(command.words()) == command


@pytest.mark.parametrize(
    "words",
    [
        ["session", "--enforces", "--gadgets=trace_open"],
        ["session", "--gadgets=trace_open", "--contained"],
        ["session", "--contained", "--gadgets=trace_open", "--enforces"],
        ["session", "--contained"],
        ["session", "--contained", "--contained", "--gadgets="],
        ["session", "--gadgets=a", "--gadgets=b"],
        ["session", "--gadgets=a,"],
        ["session", "--gadgets=a b"],
        ["session", "--gadgets=a", "--only-namespace="],
        ["session", "--gadgets=a", "--only-namespace=a/b"],
        ["session", "--gadgets=a", "--only-namespace=-a"],
        ["session", "--gadgets=a", "--only-namespace=a\n"],
        ["session", "--gadgets", "a"],
        ["session", "--gadgets=" + ",".join(["a"] * (MOST_GADGETS + 1))],
        ["session", "idle"],
        ["idle"],
        [],
    ],
)
def test_no_other_spelling_is_valid(words: list[str]) -> None:
    assert SessionCommand.parse(words) is None


def test_the_admission_policy_has_the_same_grammar() -> None:
    objects = {found["kind"]: found for found in manifests.deployment(AgentOptions(contained=True))}
    policy, agent = objects["ValidatingAdmissionPolicy"], objects["DaemonSet"]["spec"]["template"]
    text = "".join(validation["expression"] for validation in policy["spec"]["validations"])
    # Python's $ also matches before a line feed at the end, RE2's does not.
    gadgets, namespace = (found.replace("$", r"\Z") for found in re.findall(r"matches\('(\^--.+?\$)'\)", text))
    for command in (
        SessionCommand((), contained=True),
        SessionCommand(("trace_open",), contained=True, namespace="shop"),
        SessionCommand(("trace_open", "trace_exec"), contained=True, namespace="a-1"),
    ):
        words = manifests.contained_command(command, agent)
        assert re.search(gadgets, words[6])
        assert len(words) == 7 or re.search(namespace, words[7])
        assert words[:6] == ("python3", "-I", "-m", "kubectl_gadget.agent", "session", "--contained")
    for wrong in ("--gadgets=own:x", "--gadgets=a,", "--gadgets=a b", "x--gadgets=a", "--gadgets=a\nb"):
        assert not re.search(gadgets, wrong)
    for wrong in ("--only-namespace=", "--only-namespace=-a", "--only-namespace=a/b", "--only-namespace=a,b"):
        assert not re.search(namespace, wrong)


def test_an_own_gadget_is_declared_as_such() -> None:
    assert declared_name({"name": "trace_open"}) == "trace_open"
    assert declared_name({"name": "trace_open", "own": True}) == "own:trace_open"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"name": "trace_open", "globals": {}, "parameters": {}}, False),
        ({"name": "network_policy", "globals": {"dry_run": {}}, "parameters": {}}, True),
        ({"name": "network_policy", "globals": {"dry_run": {}}, "parameters": {"dry_run": True}}, False),
        ({"kind": "policy", "hooks": [{"variables": {"policy_signals": False}, "ways": [{}]}]}, False),
        ({"kind": "policy", "hooks": [{"variables": {"policy_signals": True}, "ways": []}]}, True),
        ({"kind": "policy", "hooks": [{"variables": {"policy_signals": {"hex": "01"}}, "ways": []}]}, True),
        ({"kind": "policy", "hooks": [{"variables": {"policy_sets": True}, "ways": []}]}, True),
        ({"kind": "policy", "hooks": [{"ways": [{"variables": {"policy_overrides": True}}]}]}, True),
        ({"kind": "policy", "kill": {"0": "1"}, "hooks": []}, True),
    ],
)
def test_what_enforces_is_told_by_what_the_programs_go_by(spec: dict[str, object], expected: bool) -> None:
    assert enforces(spec) is expected
