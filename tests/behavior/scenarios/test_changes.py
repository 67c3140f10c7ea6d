"""What a release must not do unseen: each seeded change is the first or second of what is found."""

import pytest

from kubectl_gadget.behavior.comparison import ChangeKind, compare
from kubectl_gadget.behavior.facts import Behavior, merge
from tests.behavior.scenarios.changes import CHANGES, SeededChange
from tests.behavior.scenarios.recording import one_workload

# The first test makes an image from packages, and records all workloads, which takes minutes beside virtual machines.
pytestmark = [pytest.mark.bpf, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])
def test_a_seeded_change_comes_first_or_second(
    runs: tuple[Behavior, Behavior], changed: Behavior, change: SeededChange
) -> None:
    old = one_workload(merge(runs), change.workload.name)
    new = one_workload(changed, change.called, called=change.workload.name)
    assert new.coverage

    found = [one for one in compare(old, new) if one.kind is ChangeKind.NEW]

    says = [f"{one.fact.kind}: {one.fact.says}" for one in found]
    assert any(one.fact.kind is change.kind and change.says in one.fact.says for one in found[:2]), says
