"""What an agent says of its node."""

import ipaddress
import json
import subprocess
import sys

import pytest


@pytest.mark.root
def test_the_nodes_addresses_are_those_of_the_network_that_its_parent_is_in() -> None:
    script = "from kubectl_gadget.agent.host import this_node; print(*this_node.addresses())"
    command = ["unshare", "--net", sys.executable, "-c", script]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    links = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True).stdout)
    found = {ipaddress.ip_address(item["local"]) for link in links for item in link.get("addr_info", ())}
    own = {str(address) for address in found if not (address.is_loopback or address.is_link_local)}
    assert own
    assert {str(ipaddress.ip_address(address)) for address in told} == own
