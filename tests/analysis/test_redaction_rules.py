"""What rules make of an address within a text."""

from ipaddress import IPv6Address

import pytest

from kubectl_gadget.analysis.redaction_rules import RedactionRule, Redactor

REDACTOR = Redactor([RedactionRule("addresses", "hash", take="addresses")], b"secret")


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:0.0.0.0", "::"])
def test_addresses_that_say_nothing_stay(text: str) -> None:
    assert REDACTOR.text(f"to {text}", "comm") == f"to {text}"


def test_an_ipv4_address_becomes_the_same_within_an_ipv6_one_in_a_text_and_in_bytes() -> None:
    alone = REDACTOR.text("203.0.113.77", "comm")
    assert alone != "203.0.113.77"
    for spelling in ("::ffff:203.0.113.77", "::ffff:cb00:714d"):
        assert REDACTOR.text(spelling, "comm") == f"::ffff:{alone}"
    assert REDACTOR.address(IPv6Address("::ffff:203.0.113.77").packed, "dst") == IPv6Address(f"::ffff:{alone}").packed
