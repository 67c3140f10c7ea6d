"""Capabilities from facts."""

from kubectl_gadget.advise.from_facts.capabilities_of_facts import capabilities
from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind
from tests.behavior.made import behavior, fact


def test_capabilities_that_were_used_are_added_and_all_others_dropped() -> None:
    found = behavior(fact("capability", "/bin/cart", "CAP_NET_RAW"), fact("capability", "/bin/sh", "CAP_CHOWN"))

    (document,) = capabilities(found)

    (container,) = document.body["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "NET_RAW"]}


def test_what_was_denied_is_not_added() -> None:
    found = behavior(fact("capability", "/bin/cart", "denied CAP_SYS_ADMIN"))

    (document,) = capabilities(found)

    (container,) = document.body["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert any("requested SYS_ADMIN, which was denied" in text for text in document.comments)


def test_no_advice_is_given_on_what_was_not_looked_at() -> None:
    assert capabilities(behavior(kinds=USUAL_KINDS - {FactKind.CAPABILITY})) == []


def test_an_incomplete_container_is_said() -> None:
    (document,) = capabilities(behavior(complete_runs=0, incomplete=("events were lost",)))

    assert any("events were lost" in text for text in document.comments)
