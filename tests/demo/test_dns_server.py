"""The demo's DNS server, against a client that is not ours (dnspython)."""

import dns.message
import dns.rcode
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.demo.dns_server import reply

ADDRESSES = {"deathstar.empire.svc.cluster.local": bytes([10, 213, 77, 12])}


def answer_to(name: str, kind: str) -> dns.message.Message:
    question = dns.message.make_query(name, kind)
    data = reply(question.to_wire(), ADDRESSES)
    assert data is not None
    answer = dns.message.from_wire(data)
    assert question.is_response(answer)
    return answer


def test_a_known_name_has_its_address() -> None:
    (found,) = answer_to("DeathStar.empire.svc.cluster.local", "A").answer
    assert [item.to_text() for item in found] == ["10.213.77.12"]


def test_a_known_name_has_no_address_of_ipv6_and_yet_is_there() -> None:
    answer = answer_to("deathstar.empire.svc.cluster.local", "AAAA")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_another_name_is_not_there() -> None:
    assert answer_to("deathstar.empire.default.svc.cluster.local", "A").rcode() == dns.rcode.NXDOMAIN


@given(st.binary(max_size=600))
def test_the_server_survives_packets_that_are_not_questions(data: bytes) -> None:
    reply(data, ADDRESSES)
