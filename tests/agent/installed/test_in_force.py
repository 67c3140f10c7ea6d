"""Loading a set of installed policies: what is closed when it cannot be loaded."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubectl_gadget.agent.installed import in_force
from kubectl_gadget.agent.policies.hook_set import HookSet
from kubectl_gadget.errors import AgentError


def test_the_dispatcher_is_closed_when_no_hook_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    context = SimpleNamespace(calls=SimpleNamespace(close=lambda: closed.append("calls")))

    def refused(*_: object, **__: object) -> None:
        raise AgentError("none of the policies' hooks exists on this node")

    monkeypatch.setattr(in_force, "NodeContext", lambda *_, **__: context)
    monkeypatch.setattr(in_force, "load_hooks", refused)
    with pytest.raises(AgentError, match="none of"):
        in_force._load(cast(Any, None), b"", cast(Any, None), HookSet())
    assert closed == ["calls"]
