"""Community IDs, against one that the specification's authors publish."""

import ipaddress
import random

import numpy as np

from kubectl_gadget.rows.community_id import community_id, tcp_ids

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
    clients, servers = (
        [(".".join(str(pick.randrange(256)) for _ in range(4)), pick.randrange(65536)) for _ in range(200)]
        for _ in range(2)
    )
    servers[0] = clients[0]
    numbers = [
        np.array([int(ipaddress.IPv4Address(ip)) << 16 | port for ip, port in ends], np.uint64)
        for ends in (clients, servers)
    ]
    assert tcp_ids(*numbers) == [community_id("TCP", *ends) for ends in zip(clients, servers, strict=True)]
