"""Reads records of trace tcp and trace dns: connections that were made, accepted or closed, and DNS lookups.

The trap: connections of unknown processes, and the server's side of DNS, are skipped.
"""

from collections.abc import Sequence

from kubectl_gadget.observe.decoders.process_records import numbers
from kubectl_gadget.observe.happening import ConnectionEvent
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.members import member_values as values
from kubectl_gadget.rows.community_id import community_id
from kubectl_gadget.rows.exec_id_field import read_exec_id

_UNKNOWN = (1 << 64) - 1
_ENDS = ("local", "local_port", "remote", "remote_port")


def connection_events(batch: Batch) -> Sequence[Sequence[ConnectionEvent]]:
    """One event for each row of trace tcp with a known process. The source is the end that connected, if that is
    known."""
    rows = zip(
        values(batch, "operation"),
        batch.raw("exec_id").tolist(),
        numbers(batch, "tid"),
        values(batch, "initiator"),
        zip(*(values(batch, name) for name in _ENDS), strict=True),
        values(batch, "error"),
        *(map(_known, numbers(batch, name)) for name in ("sent", "received", "duration")),
        values(batch, "comm"),
        strict=True,
    )
    found: list[Sequence[ConnectionEvent]] = []
    for operation, process, tid, initiator, ends, error, sent, received, duration, comm in rows:
        identity, local, remote = read_exec_id(process), ends[:2], ends[2:]
        if identity is None or not remote[1]:
            found.append([])
            continue
        source, target = (remote, local) if initiator == "other end" else (local, remote)
        event = ConnectionEvent(
            operation=operation,
            process=identity,
            tid=tid,
            protocol="TCP",
            source=source,
            target=target,
            flow_id=community_id("TCP", source, target),
            error=error or "",
            sent=sent,
            received=received,
            duration=duration,
            comm=comm,
        )
        found.append([event])
    return found


def dns_events(batch: Batch) -> Sequence[Sequence[ConnectionEvent]]:
    """One event for each row of trace dns from the side that asks."""
    ends = ("client", "client_port", "server", "server_port")
    rows = zip(
        batch.raw("exec_id").tolist(),
        numbers(batch, "tid"),
        zip(*(values(batch, name) for name in ends), strict=True),
        map(_known, numbers(batch, "latency")),
        *(values(batch, name) for name in ("role", "protocol", "name", "type", "rcode", "addresses", "comm")),
        strict=True,
    )
    found: list[Sequence[ConnectionEvent]] = []
    for process, tid, addresses, latency, role, protocol, name, type, rcode, answers, comm in rows:
        identity, source, target = read_exec_id(process), addresses[:2], addresses[2:]
        if identity is None or role != "client":
            found.append([])
            continue
        event = ConnectionEvent(
            operation="dns",
            process=identity,
            tid=tid,
            protocol=protocol,
            source=source,
            target=target,
            flow_id=community_id(protocol, source, target),
            duration=latency,
            name=name or "",
            type=type,
            rcode=rcode,
            answers=tuple(answers or ()),
            comm=comm,
        )
        found.append([event])
    return found


def _known(number: int) -> int | None:
    return None if number == _UNKNOWN else number
