"""What `make kernels` wrote to docs/kernels.json. It is as old as its date, so a gadget may be missing."""

import json

from tests.vm.check import WHOLE
from tests.vm.table import ARM64, FILE


def test_every_gadget_was_loaded_on_arm64_and_none_counted_wrong() -> None:
    found = json.loads(FILE.read_text())[ARM64]["gadgets"]
    assert len(found) >= 57
    assert {name: outcome for name, outcome in found.items() if "refused" in outcome} == {}
    assert [name for name, outcome in found.items() if outcome["count"] == "failed"] == []
    assert sum(outcome["count"] == "passed" for outcome in found.values()) >= 54


def test_payload_agent_sessions_and_policies_worked_on_arm64() -> None:
    found = json.loads(FILE.read_text())[ARM64]["tests"]
    assert {test: found.get(test) for test in WHOLE if found.get(test) != "passed"} == {}
