"""New things are looked at soon and often, old ones rarely."""

import pytest

from kubectl_gadget.agent.host import rechecks
from kubectl_gadget.agent.host.rechecks import Rechecks


def test_old_things_are_checked_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(rechecks.time, "monotonic", lambda: now)
    found, looks = Rechecks[str](), []
    for tenth in range(200):
        now = 100.0 + tenth / 10
        looks += [tenth] * len(found.due({"a"}))
    assert looks[:6] == [0, 1, 3, 8, 18, 38]
    assert looks[6:] == [88, 138, 188]


def test_a_thing_that_reappears_is_new() -> None:
    found = Rechecks[str]()
    assert found.due({"a", "b"})
    assert not found.due({"a", "b"})
    found.due({"b"})
    assert found.due({"a", "b"}) == ["a"]
