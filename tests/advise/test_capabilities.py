"""Which checks make a capability necessary."""

from typing import Any

import pytest

from kubectl_gadget.advise import capabilities
from kubectl_gadget.advise.uses import SeenUses
from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind
from kubectl_gadget.kube.inventory import Inventory
from tests.advise.flows import WEB
from tests.behavior.made import behavior, fact

FIRST, NESTED = 0xEFFFFFFD, 4026532000
CHOWN, SYS_ADMIN = 0, 21


def row(capability: str = "CAP_CHOWN", number: int = CHOWN, **members: Any) -> dict[str, Any]:
    return {
        "namespace": WEB.namespace,
        "pod": WEB.name,
        "container": "main",
        "comm": "app",
        "capability": capability,
        "capability_raw": number,
        "effective_raw": (1 << 41) - 1,
        "errno": 0,
        "syscall": "fchownat",
        "stack": ["cap_capable+0x1/0x2", "security_capable+0x1/0x2", "chown_common+0x1/0x2"],
        "user_ns": FIRST,
        **members,
    }


def need(*rows: dict[str, Any]) -> capabilities.Need:
    made = SeenUses(capabilities.KIND)
    for item in rows:
        made.add(capabilities.uses_of(item))
    return capabilities.need(made.uses)


def test_a_check_that_succeeded_makes_the_capability_necessary() -> None:
    assert need(row(), row(), row("CAP_SYS_ADMIN", SYS_ADMIN)).used == ("CHOWN", "SYS_ADMIN")


def test_a_refusal_names_the_caller_and_its_system_call() -> None:
    found = need(row(errno=1, comm="tool"), row(errno=1, comm="tool"), row(errno=1, syscall="chown"))
    assert found.used == ()
    assert found.refused == {"CHOWN": ("tool (fchownat)", "app (chown)")}


@pytest.mark.parametrize(
    "stack",
    [
        ["cap_capable+0x83/0x110", "security_vm_enough_memory_mm+0x36/0x80", "dup_mmap+0x255/0x7e0"],
        ["cap_capable+0x83/0x110", "ns_capable_noaudit+0x36/0x80", "ptrace_may_access+0x2/0x7e0"],
    ],
)
def test_a_check_whose_refusal_changes_nothing_does_not_count(stack: list[str]) -> None:
    for errno in (0, 1):
        found = need(row("CAP_SYS_ADMIN", SYS_ADMIN, stack=stack, errno=errno))
        assert (found.used, found.refused) == ((), {})
    assert need(row("CAP_SYS_ADMIN", SYS_ADMIN, stack=stack), row("CAP_SYS_ADMIN", SYS_ADMIN)).used == ("SYS_ADMIN",)


def test_what_the_runtime_does_before_the_program_begins_does_not_count() -> None:
    assert need(row(comm="runc:[2:INIT]")).used == ()


def test_rights_in_a_namespace_that_the_program_made_are_not_the_containers() -> None:
    assert need(row(), row("CAP_SYS_ADMIN", SYS_ADMIN, user_ns=NESTED)).used == ("CHOWN",)
    assert need(row("CAP_SYS_ADMIN", SYS_ADMIN, effective_raw=0)).used == ()
    # A pod with a user namespace of its own is never seen in the first one.
    assert need(row("CAP_SYS_ADMIN", SYS_ADMIN, user_ns=NESTED)).used == ("SYS_ADMIN",)


def test_the_patch_drops_all_and_adds_what_was_used_also_for_containers_that_did_nothing() -> None:
    made = SeenUses(capabilities.KIND, inventory=Inventory([WEB]))
    made.add(capabilities.uses_of(row()))
    made.watch((WEB.namespace, WEB.name, "main"), earlier=False)
    made.watch((WEB.namespace, WEB.name, "side"), earlier=True)
    (document,) = capabilities.advise(made)
    containers = document.body["spec"]["template"]["spec"]["containers"]
    assert [(item["name"], item["securityContext"]["capabilities"]) for item in containers] == [
        ("main", {"drop": ["ALL"], "add": ["CHOWN"]}),
        ("side", {"drop": ["ALL"]}),
    ]
    assert "shop/deployment/web/side: used none." in document.comments
    notes = [line for line in document.comments if "start was not seen" in line]
    assert document.comments.index(notes[0]) == document.comments.index("shop/deployment/web/side: used none.") + 1
    assert len(notes) == 1, "main was seen from its start"


def test_capabilities_that_were_used_are_added_and_all_others_dropped() -> None:
    found = behavior(fact("capability", "/bin/cart", "CAP_NET_RAW"), fact("capability", "/bin/sh", "CAP_CHOWN"))

    (document,) = capabilities.from_facts(found)

    (container,) = document.body["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "NET_RAW"]}


def test_what_was_denied_is_not_added() -> None:
    found = behavior(fact("capability", "/bin/cart", "denied CAP_SYS_ADMIN"))

    (document,) = capabilities.from_facts(found)

    (container,) = document.body["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert any("requested SYS_ADMIN, which was denied" in text for text in document.comments)


def test_no_advice_is_given_on_what_was_not_looked_at() -> None:
    assert capabilities.from_facts(behavior(kinds=USUAL_KINDS - {FactKind.CAPABILITY})) == []


def test_an_incomplete_container_is_said() -> None:
    (document,) = capabilities.from_facts(behavior(complete_runs=0, incomplete=("events were lost",)))

    assert any("events were lost" in text for text in document.comments)
