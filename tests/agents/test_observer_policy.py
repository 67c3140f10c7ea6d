"""The admission policy of contained agents, its CEL evaluated for whole commands: who gets which session.

Functions of the API server that cel-python lacks (split, substring, the authorizer) are defined here. The real server
evaluates the same policy in tests/real_cluster/test_contained.py.
"""

from collections.abc import Sequence
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from celpy.celtypes import BoolType, ListType, StringType

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.payload import payload
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.wire.session_command import SessionCommand

CONTENTS = ("trace_ssl", "tcpdump")
START = payload().start
EVERYWHERE, IN_SHOP = "traces", "traces@shop"
"""Rights to observe, in the spelling of `allowed`."""


class Policy:
    """The policy that `deploy --contained` applies."""

    def __init__(self) -> None:
        objects = manifests.deployment(AgentOptions(contained=True), contents=CONTENTS)
        self._spec = next(found["spec"] for found in objects if found["kind"] == "ValidatingAdmissionPolicy")
        self._environment = celpy.Environment()

    def refuses(self, words: Sequence[str], *rights: str, **request: Any) -> bool:
        """True if a user with these rights may not exec these words. `request` replaces members of the request."""

        def allowed(question: Any) -> BoolType:
            return BoolType(str(question) in rights)

        functions = {
            "substring": lambda text, begin: StringType(str(text)[int(begin) :]),
            "split": lambda text, by: ListType([StringType(part) for part in str(text).split(str(by))]),
            "group": lambda authorizer, name: StringType(name),
            "resource": lambda group, name: StringType(name),
            "namespace": lambda resource, name: StringType(f"{resource}@{name}"),
            "subresource": lambda resource, name: StringType(f"{name} of {resource}"),
            "check": lambda resource, verb: StringType(resource),
            "allowed": allowed,
        }
        values: dict[str, Any] = {
            "request": {"subResource": "exec"},
            "object": {"command": list(words), "container": "agent"},
            "authorizer": "authorizer",
            "variables": {},
            **request,
        }

        def evaluate(expression: str) -> Any:
            program = self._environment.program(self._environment.compile(expression), functions=functions)
            return program.evaluate({name: json_to_cel(value) for name, value in values.items()})

        for variable in self._spec["variables"]:
            found = evaluate(variable["expression"])
            values["variables"][variable["name"]] = (
                [str(word) for word in found] if isinstance(found, list) else str(found)
            )
        return not all(evaluate(validation["expression"]) for validation in self._spec["validations"])


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy()


def session(*words: str) -> tuple[str, ...]:
    return (*START, "session", "--contained", *words)


@pytest.mark.parametrize(
    ("words", "rights"),
    [
        (("--gadgets=trace_open",), (EVERYWHERE,)),
        (("--gadgets=trace_open,trace_exec", "--only-namespace=shop"), (IN_SHOP,)),
        (("--gadgets=trace_ssl", "--only-namespace=shop"), (IN_SHOP, f"contents of {IN_SHOP}")),
        (("--gadgets=status",), (EVERYWHERE,)),
    ],
)
def test_a_session_is_let_through_only_with_the_right_to_its_gadgets(
    policy: Policy, words: tuple[str, ...], rights: tuple[str, ...]
) -> None:
    assert not policy.refuses(session(*words), *rights)
    assert policy.refuses(session(*words))
    for missing in rights:
        assert policy.refuses(session(*words), *(right for right in rights if right != missing))
    # What the policy lets through is what the agent takes.
    assert SessionCommand.parse(session(*words)[len(START) :])


ONLY = "--only-namespace=shop"
ALL_RIGHTS = (EVERYWHERE, IN_SHOP, f"contents of {EVERYWHERE}", f"contents of {IN_SHOP}")
REFUSED = [
    (),
    ("--gadgets=",),
    ("--gadgets=", ONLY),
    ("--gadgets",),
    ("--gadgets", "trace_open"),
    ("--gadgets= ",),
    ("--gadgets=,",),
    ("--gadgets=trace_open,",),
    ("--gadgets=,trace_open",),
    ("--gadgets=trace_open,,trace_exec",),
    ("--gadgets= trace_open",),
    ("--gadgets=trace_open ",),
    ("--gadgets=trace_open, trace_exec",),
    ("--gadgets=trace_open\n",),
    ("--gadgets=trace_open\t",),
    ("--gadgets=trace_open\u00a0",),
    ("--gadgets=trace_op\u0435n",),
    ("--gadgets=trace_open\u200b",),
    ("\u2010-gadgets=trace_open",),
    ("--gadgets=own:trace_open",),
    ("--gadgets=trace_open", "--gadgets=trace_exec"),
    ("--gadgets=trace_open", "--gadgets="),
    ("--gadgets=", "--gadgets=trace_open"),
    ("--Gadgets=trace_open",),
    ("-gadgets=trace_open",),
    ("--gadget=trace_open",),
    ("--gadgetsx=trace_open",),
    (ONLY, "--gadgets=trace_open"),
    (ONLY,),
    ("--contained", "--gadgets=trace_open"),
    ("--gadgets=trace_open", "--contained"),
    ("--gadgets=trace_open", "--enforces"),
    ("--gadgets=trace_open", "--only-namespace="),
    ("--gadgets=trace_open", "--only-namespace"),
    ("--gadgets=trace_open", "--only-namespace", "shop"),
    ("--gadgets=trace_open", "--only-namespace=shop,bank"),
    ("--gadgets=trace_open", "--only-namespace=Shop"),
    ("--gadgets=trace_open", "--only-namespace=shop\n"),
    ("--gadgets=trace_open", "--only-namespace=*"),
    ("--gadgets=trace_open", ONLY, ONLY),
    ("--gadgets=trace_open", "--only-namespace=", ONLY),
    ("--gadgets=trace_open", ""),
    ("--gadgets=trace_open", ONLY, ""),
    ("", "--gadgets=trace_open"),
]


@pytest.mark.parametrize("words", REFUSED)
def test_no_other_command_is_let_through_whatever_the_rights(policy: Policy, words: tuple[str, ...]) -> None:
    assert policy.refuses(session(*words), *ALL_RIGHTS)
    # The agent refuses them too, if the policy is ever missing.
    assert SessionCommand.parse(session(*words)[len(START) :]) is None


@pytest.mark.parametrize(
    "words",
    [
        (*START, "session"),
        (*START, "session", "--gadgets=trace_open"),
        (*START, "session", "--local", "--gadgets=trace_open"),
        (*START[:-1], "x86_64=1:0", "session", "--contained", "--gadgets=trace_open"),
        (*START, "--contained", "session", "--gadgets=trace_open"),
        ("sh", *session("--gadgets=trace_open")),
        (),
    ],
)
def test_no_other_start_is_let_through(policy: Policy, words: tuple[str, ...]) -> None:
    assert policy.refuses(words, *ALL_RIGHTS)


def test_only_an_exec_in_the_agents_container_without_a_terminal_is_let_through(policy: Policy) -> None:
    words = session("--gadgets=trace_open")
    command: dict[str, Any] = {"command": list(words), "container": "agent"}
    assert not policy.refuses(words, EVERYWHERE, object=command)
    assert policy.refuses(words, EVERYWHERE, object=command | {"tty": True})
    assert policy.refuses(words, EVERYWHERE, object=command | {"container": "debugger"})
    assert policy.refuses(words, EVERYWHERE, object={"command": list(words)})
    assert policy.refuses(words, EVERYWHERE, request={"subResource": "attach"})
