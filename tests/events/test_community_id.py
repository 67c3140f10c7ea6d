"""Community IDs, against one that the specification's authors publish."""

import random

from kubectl_gadget.events.community_id import community_id, tcp_ids

CLIENT, SERVER = ("128.232.110.120", 34855), ("66.35.250.204", 80)


def test_the_id_is_the_one_that_other_tools_give() -> None:
    assert community_id("TCP", CLIENT, SERVER) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="


def test_both_directions_have_the_same_id_and_protocols_different_ones() -> None:
    assert community_id("TCP", SERVER, CLIENT) == community_id("TCP", CLIENT, SERVER)
    assert community_id("UDP", CLIENT, SERVER) != community_id("TCP", CLIENT, SERVER)


def test_pings_have_no_ports() -> None:
    assert community_id("ICMP", ("10.0.0.1", 7), ("10.0.0.2", 0)) == community_id(
        "ICMP", ("10.0.0.1", 9), ("10.0.0.2", 0)
    )


def test_ids_of_many_connections_are_those_of_each() -> None:
    pick = random.Random(1)
    v4 = [".".join(str(pick.randrange(256)) for _ in range(4)) for _ in range(50)]
    for ips in (v4, [*v4, "2001:db8::1"]):
        clients, servers = pick.choices(ips, k=200), pick.choices(ips, k=200)
        ports = [[pick.randrange(65536) for _ in clients] for _ in range(2)]
        ends = zip(zip(clients, ports[0], strict=True), zip(servers, ports[1], strict=True), strict=True)
        assert tcp_ids(clients, ports[0], servers, ports[1]) == [community_id("TCP", *both) for both in ends]
