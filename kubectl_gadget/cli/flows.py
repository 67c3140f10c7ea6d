"""`kubectl gadget flows`: who talks to whom, with which process, and with what result.

`from` and `to` are the client and the server of a flow; -n and the names of pods select whose side is traced at all.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, TextIO

from kubectl_gadget.cli import run
from kubectl_gadget.cli.flags import SHOW, Names, OutputFlags, Seconds, Switch, Text, TypedOnly, flag, format_flag
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.policy_flags import OBJECTS_ARE_LOCAL, objects_flag
from kubectl_gadget.cli.printing import say
from kubectl_gadget.cli.run_flags import RunFlags, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.registry import FLOWS

if TYPE_CHECKING:
    from kubectl_gadget.flows.filter import FlowFilter
    from kubectl_gadget.flows.run import FlowGadgets
    from kubectl_gadget.output.sink import Sink
    from kubectl_gadget.output.terminal import Terminal

_FILTER = "Which flows"
_FIRST_SECONDS = 5.0
"""Seconds that a run waits for the cluster's objects, so that its first flows have names."""


@dataclass(frozen=True)
class FlowOutputFlags(OutputFlags):
    """The same flags as for gadgets, with other formats."""

    output: Annotated[Text, format_flag(FLOWS, FLOWS.help)] = None


@dataclass(frozen=True)
class FlowRunFlags(RunFlags):
    """The flags of a run that shows flows."""

    output: FlowOutputFlags


_Texts = tuple[str, ...] | None
Conditions = dict[str, tuple[str, ...]]
"""Conditions on flows: the given values by flag."""


@dataclass(frozen=True)
class FlowFlags:
    """Flags that select flows and how they are shown."""

    with_map: Annotated[Switch, flag(SHOW, "--map", "Draw a map of the flows at the end")] = None
    map_every: Annotated[Seconds, flag(SHOW, "--map-interval TIME", "Draw the map at this interval: 10s")] = None
    web: Annotated[
        Switch, flag(SHOW, "--web", "Serve the live page (--ui) with its map first; prints its URL"), TypedOnly.ACTION
    ] = None
    drops: Annotated[Switch, flag(SHOW, "--drops", "Packets that the kernel drops (default)")] = None
    dns: Annotated[Switch, flag(SHOW, "--dns-rows", "DNS questions and answers (default)")] = None
    http: Annotated[Switch, flag(SHOW, "--http-rows", "Plain HTTP requests and gRPC calls")] = None
    packets: Annotated[Switch, flag(SHOW, "--packets", "Also a line for each packet of TCP and UDP (many)")] = None
    loopback: Annotated[Switch, flag(_FILTER, "--loopback", "Also flows within one pod or one host")] = None
    report_every: Annotated[
        Seconds, flag(SHOW, "--report-interval TIME", "Time between reports of a flow in progress (default: 1s)")
    ] = None
    objects: Annotated[Text, objects_flag(_FILTER), str, TypedOnly.ACTION] = None

    def validate(self, output: FlowOutputFlags) -> None:
        """Raises UsageError if flags contradict the format."""
        if (self.with_map or self.map_every) and output.output not in (None, "table", "wide", "dot", "mermaid"):
            raise UsageError(f"--map cannot be used with -o {output.output}")


def _condition_flags() -> dict[str, object]:
    """--pod, --from-pod, --to-pod and so on, and conditions on the event itself."""
    words = {
        "pod": ("NAME", "pods: NAME, NAMESPACE/NAME, with * for any text"),
        "namespace": ("NAME", "namespaces of pods and services"),
        "label": ("LABELS", "pods with these labels"),
        "service": ("NAME", "services: NAME or NAMESPACE/NAME"),
        "ip": ("NETWORK", "addresses: 10.1.2.3, 10.0.0.0/8"),
        "port": ("PORT", "ports: 80, 8000-8999"),
        "process": ("COMM", "processes, by COMM or pid"),
        "fqdn": ("NAME", "DNS names that resolved to it, with * for any text"),
    }
    found: dict[str, object] = {}
    for name, (metavar, help) in words.items():
        for end, of in (("", "At either end"), ("from_", "As client"), ("to_", "As server")):
            if name == "namespace" and not end:
                continue  # -n does this
            spelling = f"--{end}{name}".replace("_", "-")
            found[f"flow_{end}{name}"] = Annotated[
                Names, flag(_FILTER, f"{spelling} {metavar}", f"{of}, {help}"), TypedOnly.SELECTION
            ]
    for name, metavar, help in (
        ("protocol", "NAME", "tcp, udp, icmp, dns, http"),
        ("verdict", "NAME", "FORWARDED, DROPPED, ERROR"),
        ("traffic_direction", "NAME", "egress or ingress, as seen by the end that reports it"),
        ("dns", "NAME", "DNS names that are asked for, with * for any text"),
        ("http_status", "CODE", "404, 500-599, or 5+"),
        ("http_method", "NAME", "GET, POST"),
        ("http_path", "REGEX", "paths of HTTP requests"),
    ):
        spelling = f"--{name}".replace("_", "-")
        found[f"flow_{name}"] = Annotated[Names, flag(_FILTER, f"{spelling} {metavar}", help), TypedOnly.SELECTION]
    return found


CONDITIONS = _condition_flags()


def flows(pods: Pods, flags: FlowRunFlags, flow: FlowFlags, extras: Conditions) -> int:
    """Runs the network gadgets and prints their rows as flows."""
    from kubectl_gadget.flows.ends import AddressBook
    from kubectl_gadget.flows.joiner import FlowTable
    from kubectl_gadget.flows.run import FlowTransform
    from kubectl_gadget.kube.addresses import followed, known

    conditions = _conditions(extras, bool(flow.loopback))
    flow.validate(flags.output)
    if flow.web:
        flags = replace(flags, output=replace(flags.output, ui=True, browser=flags.output.browser or "none"))
    gadgets = _gadgets(flow, extras, has_page=bool(flags.output.ui))
    options = run_options(gadgets.runs(), pods, flags)
    if options.ui and flow.web:
        options = replace(options, ui=replace(options.ui, first="map"))
    book = AddressBook()
    if flow.objects:
        if not options.local:
            raise UsageError(OBJECTS_ARE_LOCAL)
        from kubectl_gadget.policies.network.run import read_objects

        book.cluster = known(read_objects(flow.objects), has_all_pods=True)
    table, page = FlowTable(book, flow.dns is not False), None
    transform = FlowTransform(table, conditions)
    if options.ui:
        from kubectl_gadget.flows.page import LivePage
        from kubectl_gadget.page.live import MOST_EDGES

        page = LivePage(MOST_EDGES)
        transform = FlowTransform(table, conditions, page.add_rows)

    def make_sink(_: Sequence[Gadget], stream: TextIO, terminal: "Terminal | None") -> "Sink":
        from kubectl_gadget.flows.formats import WatchedSink, make_sink

        with_map = bool(flow.with_map or flow.map_every)
        sink = make_sink(options.output, stream, terminal, with_map=with_map, map_every=flow.map_every)
        return WatchedSink(sink, page.add_all) if page else sink

    if not flow.objects and not flags.output.no_names:
        follower = followed(partial(setattr, book, "cluster"), _FIRST_SECONDS, "some addresses have no names")
        options = replace(options, followers=(follower,))
    options = replace(options, transform=transform, make_sink=make_sink, command=gadgets.command())
    code = run.run(options, sys.stdout, sys.stderr, page)
    if conditions.hidden and not options.quiet:
        say(f"not shown: {conditions.hidden:,} events of flows within one pod or host. try: --loopback")
    return code


def _conditions(extras: Conditions, loopback: bool) -> "FlowFilter":
    from kubectl_gadget.flows import filter

    def test(name: str, texts: tuple[str, ...]) -> filter.Test:
        end, _, rest = name.partition("_")
        if name in filter.EVENT_TESTS:
            return filter.EVENT_TESTS[name](texts)
        if end in ("from", "to"):
            return filter.OfEnds(end, filter.PARTY_TESTS[rest](texts))
        return filter.OfEnds("", filter.PARTY_TESTS[name](texts))

    tests = []
    for variable, texts in extras.items():
        name = variable.removeprefix("flow_")
        try:
            tests.append(test(name, texts))
        except UsageError as error:
            raise UsageError(f"--{name.replace('_', '-')}: {error}", error.remedy) from None
    return filter.FlowFilter(tests, internal=loopback)


def _gadgets(flow: FlowFlags, extras: Conditions, has_page: bool) -> "FlowGadgets":
    from kubectl_gadget.flows.run import FlowGadgets

    asks_for_http = flow.http
    if asks_for_http is None:
        protocols = {text.lower().partition("/")[0] for text in extras.get("flow_protocol") or ()}
        asks_for_http = any(name.startswith("flow_http") for name in extras) or bool(protocols & {"http", "grpc"})
    return FlowGadgets(
        drops=flow.drops is not False,
        dns=flow.dns is not False,
        http=asks_for_http,
        packets=bool(flow.packets),
        processes=has_page,
        report_seconds=flow.report_every or 1,
    )
