"""Community IDs, against one that the specification's authors publish."""

from kubectl_gadget.rows.peers import community_id

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
