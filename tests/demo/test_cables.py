import ipaddress
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import free_block

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT = "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"


def route(network: str) -> str:
    """A line of /proc/net/route of an x86 machine."""
    found = ipaddress.IPv4Network(network)
    address, mask = (bytes(reversed(item.packed)).hex().upper() for item in (found.network_address, found.netmask))
    return f"eth0\t{address}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ((), "10.213.77.0/24"),
        (("10.0.0.0/8",), "172.29.213.0/24"),
        (("10.213.77.128/25", "172.29.0.0/16"), "192.168.213.0/24"),
        (("10.213.0.0/16", "172.16.0.0/12", "192.168.0.0/16"), "198.18.213.0/24"),
        (("10.214.0.0/16",), "10.213.77.0/24"),
    ],
)
def test_the_block_is_one_that_no_route_leads_to(taken: tuple[str, ...], chosen: str, tmp_path: Path) -> None:
    (tmp_path / "route").write_text(HEAD + DEFAULT + "".join(map(route, taken)))
    assert str(free_block(tmp_path / "route")) == chosen


def test_a_machine_without_ipv4_has_the_first_block(tmp_path: Path) -> None:
    assert str(free_block(tmp_path / "none")) == "10.213.77.0/24"
