"""The gadgets of `flows`, with their parameters.

Rows of packets that netfilter drops need their call stacks, which show the hook; rows of TCP and UDP need periodic
reports, or a long flow would be seen only at its beginning and its end.
"""

from dataclasses import dataclass
from typing import Any

from kubectl_gadget import gadgets
from kubectl_gadget.run.run_options import GadgetRun

_HEADERS = 96
"""bytes of a packet that contain its headers"""


@dataclass(frozen=True)
class FlowGadgets:
    """The gadgets besides connections."""

    drops: bool = True
    dns: bool = True
    http: bool = False
    packets: bool = False
    """a row for each packet of TCP and UDP"""
    processes: bool = False
    """for views that show which process started which"""
    report_seconds: float = 1
    """time between two reports of an open flow"""

    def command(self) -> tuple[str, ...]:
        """The beginning of the command that replays a recording."""
        flags = {
            "--no-drops": not self.drops,
            "--no-dns-rows": not self.dns,
            "--http-rows": self.http,
            "--packets": self.packets,
        }
        return ("flows", *(name for name, given in flags.items() if given))

    def runs(self) -> tuple[GadgetRun, ...]:
        """The gadgets, in the order in which agents are asked to run them. trace tcpdrop keeps the owners of sockets
        for those that come after it."""
        interval = round(self.report_seconds * 1000)
        chosen: tuple[tuple[str, bool, dict[str, Any]], ...] = (
            ("trace_tcp", True, {"reports": True, "report-interval": interval}),
            ("trace_tcpdrop", self.drops, {"udp": True, "netfilter-stack": True, "no-purged": True}),
            ("trace_udp", True, {"interval": interval, "sctp": True}),
            ("trace_icmp", True, {"interval": interval}),
            ("trace_dns", self.dns, {}),
            ("trace_http", self.http, {}),
            ("tcpdump", self.packets, {"snaplen": _HEADERS}),
            ("trace_process", self.processes, {}),
        )
        return tuple(GadgetRun(gadgets.load_gadget(name), found) for name, wanted, found in chosen if wanted)
