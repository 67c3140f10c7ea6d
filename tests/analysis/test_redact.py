"""A redacted recording has nothing of what was taken out, in any block, for every gadget's layout, and is replayed."""

import io
import ipaddress
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.analysis.conversion import to_files
from kubectl_gadget.analysis.redact import redact
from kubectl_gadget.analysis.redact import redacted as redacted_records
from kubectl_gadget.analysis.redaction_rules import RedactionRule, Redactor, read_rules
from kubectl_gadget.cli.pages import index
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.gadgets.schema import STRING_TYPES, Gadget
from kubectl_gadget.recording import layout
from kubectl_gadget.recording import writer as writer_module
from kubectl_gadget.recording.layout import RecordKind
from kubectl_gadget.recording.reader import Damage, RecordingReader
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.rows.views import RowWriter, Value
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.frames import EventsHeader, FrameType
from tests.analysis.recordings import BOOT_NS, SECOND, WALL_NS, opens, recorded
from tests.examples import examples
from tests.gadget_run import GADGET
from tests.recording.test_equality_here import POLICY

pytestmark = pytest.mark.usefixtures("catalogue_built")
ADDRESS = "203.0.113.77"
RAW = ipaddress.ip_address(f"::ffff:{ADDRESS}").packed
ID, UID = "5ec2e7" * 10 + "abcd", "5ec2e700-1111-2222-3333-444455556666"
NAMES = {
    "namespace": "bank-namespace",
    "pod": "teller-pod-0",
    "container": "vault-container",
    "image": "registry.corp.example/vault-image:7",
    "id": ID,
    "pod_uid": UID,
}
SECRETS = (
    *(b"bank-namespace", b"teller-pod-0", b"vault-container", b"vault-image", b"node-of-alice", b"label-of-alice"),
    *(b"alice", b"hidden", b"contents-of", b"argument-of", ID.encode(), UID.encode(), ADDRESS.encode(), RAW),
    *(b"service-of-alice", b"step-of-alice"),
)


def secret(name: str, type: str) -> bytes:
    """A text for a field that the default rules take out."""
    if name in ("args", "arguments", "parameters"):
        return b"--password\0argument-of\0"
    if name in ("payload", "data", "packet", "text"):
        return b"contents-of-a-request"
    if type == "gadget_path":
        return b"hidden\0alice\0home\0"
    if name.endswith("name"):
        return b"teller-pod-0"
    return b"/home/alice/hidden"


def every_gadget() -> list[Gadget]:
    return [load_gadget(entry.name) for entry in index()]


def with_secrets(path: Path, gadget: Gadget, more: int = 0) -> None:
    """A recording that has a secret at each place that may have one, and as many steps after them."""
    record = gadget.as_sent().record
    rows, values = RowWriter(record), dict[str, Value]()
    for field in record.fields:
        if field.type in STRING_TYPES:
            values[field.name] = secret(field.name, field.type)
        elif field.type == "gadget_ip":
            values[field.name] = RAW
        elif field.type in ("gadget_comm", "gadget_device"):
            values[field.name] = b"teller-pod-0"
        elif field.type.startswith("char[") and field.size >= 20:
            values[field.name] = b"/home/alice/hidden"
        elif field.type == "gadget_cgroup":
            values[field.name] = 77
    rows.add(b"", BOOT_NS + 1, values)
    if relative := [field.name for field in record.fields if field.type == "gadget_path_at"]:
        rows.add(b"", BOOT_NS + 2, values | dict.fromkeys(relative, b"hidden/plans"))
    functions = {item.name: "libc:malloc" for item in gadget.parameters if item.type == "functions"}
    options = RunOptions(
        (GadgetRun(gadget, {"path": "/home/alice/hidden"} | functions),), filter='pod == "teller-pod-0"'
    )
    meta = meta_of(options) | {"selection": "pod teller-pod-0", "command": [*gadget.command, "teller-pod-0"]}
    writer = RecordingWriter(path, meta, print)
    clocks = {"boot_ns": BOOT_NS, "realtime_ns": WALL_NS}
    hello = {"protocol": 1, "agent": "1", "node": "node-of-alice", "addresses": [ADDRESS], **clocks}
    started = {"gadgets": [{"name": gadget.name, "programs": []}], **clocks}
    containers = {"containers": [NAMES | {"cgroup": 77, "kind": "container"}], "cgroups": {"77": ID}}
    stacks = {"gadget": 0, "first": 0, "frames": ["run\t/home/alice/hidden/app\t0x1"], "stacks": {"5": [0]}}
    pod = {
        "metadata": {
            "name": "teller-pod-0",
            "namespace": "bank-namespace",
            "uid": UID,
            "labels": {"app": "label-of-alice"},
        },
        "spec": {"nodeName": "node-of-alice", "containers": [{"name": "vault-container", "image": NAMES["image"]}]},
        "status": {"podIP": ADDRESS},
    }
    service = {
        "metadata": {"name": "service-of-alice", "namespace": "bank-namespace", "uid": "u-2"},
        "spec": {"clusterIP": ADDRESS},
    }
    objects = {"kinds": {"pods": {"put": [pod]}, "services": {"put": [service]}}, "all": True}
    frames = [
        RecordedFrame("node-of-alice", kind, json.dumps(content).encode())
        for kind, content in (
            (FrameType.HELLO, hello),
            (FrameType.STARTED, started),
            (FrameType.CONTAINERS, containers),
            (FrameType.STACKS, stacks),
        )
    ]
    mark = json.dumps({"name": "step-of-alice", "wall_ns": WALL_NS}).encode()
    frames.append(RecordedFrame("", layout.STEP_MARK, mark))
    writer.step(BOOT_NS, WALL_NS, frames, {f"{UID}\nbank-namespace/teller-pod-0": True}, [objects])
    payload = EventsHeader(0, 1, BOOT_NS + SECOND).encode() + rows.take()
    for number in range(1 + more):
        later = SECOND + number * SECOND // 10
        events = [RecordedFrame("node-of-alice", FrameType.EVENTS, payload)]
        writer.step(BOOT_NS + later, WALL_NS + later, events)
    writer.close(
        {"seconds": 1, "nodes": {"node-of-alice": {"gaps": 0, "gap_seconds": 0.0, "error": "node-of-alice failed"}}}
    )


def everything(path: Path) -> bytes:
    """All bytes of a recording, decompressed."""
    found = [path.read_bytes()]
    with RecordingReader(path) as reader:
        for _, control, events in reader.blocks(Damage()):
            found += [control, events]
    return b"\n".join(found)


def redacted(source: Path, copy: Path, rules: list[RedactionRule] | None = None) -> Redactor:
    redactor = Redactor(rules or read_rules("default"), b"0123456789abcdef")
    with copy.open("xb") as stream:
        assert redact(source, stream, redactor).left_out == 0
    return redactor


@pytest.mark.parametrize("name", [entry.name for entry in index()])
def test_nothing_is_left_of_what_was_taken_out(name: str, tmp_path: Path) -> None:
    with_secrets(tmp_path / "a.kgr", load_gadget(name))
    before = everything(tmp_path / "a.kgr")
    assert b"teller-pod-0" in before
    redactor = redacted(tmp_path / "a.kgr", tmp_path / "b.kgr")
    after = everything(tmp_path / "b.kgr")
    assert [word for word in SECRETS if word in after] == []
    assert sum(redactor.counts.values()) > 0
    errors = io.StringIO()
    assert to_files([tmp_path / "b.kgr"], "jsonl", tmp_path / "rows", errors) == 0
    assert "cannot be read" not in errors.getvalue()


@pytest.mark.parametrize("name", [entry.name for entry in index()])
def test_records_together_are_rewritten_as_each_alone(name: str) -> None:
    gadget = load_gadget(name)
    record, alone, data = gadget.as_sent().record, [], b""
    texts = (b"/home/alice/hidden", b"/home/bob/x", b"hidden", b"lib/a.so", b"", b"a\0home\0", b"203.0.113.77:80")
    places = [field for field in record.fields if field.type in STRING_TYPES]
    numbers = [field.name for field in record.fields if field.type in ("gadget_timestamp", "gadget_pid")]
    fixed = [field.name for field in record.fields if field.type in ("gadget_comm", "gadget_device")]
    addresses = [field.name for field in record.fields if field.type == "gadget_ip"]
    for row in range(60):  # some are alike but for their numbers
        values: dict[str, Value] = dict.fromkeys(numbers, row)
        values |= dict.fromkeys(fixed, (b"teller-pod-0", b"sh")[row % 3 % 2])
        values |= dict.fromkeys(addresses, RAW if row % 4 else bytes(16))
        for place, field in enumerate(places):
            if (row + place) % 5:
                values[field.name] = texts[row * (place + 1) % 10 % len(texts)]
        rows = RowWriter(record)
        rows.add(b"", BOOT_NS + row, values)
        alone.append(rows.take())
        data += alone[-1]
    one, other = (Redactor(read_rules("default"), b"0123456789abcdef", names={"teller-pod-0"}) for _ in range(2))
    bounds = [sum(map(len, alone[:first])) for first in (0, 7, 40)]
    found = redacted_records(gadget, data, one, bounds)
    each = [redacted_records(gadget, record, other)[0] for record in alone]
    assert found == [b"".join(each[:7]), b"".join(each[7:40]), b"".join(each[40:])]
    assert one.counts == other.counts


def test_states_and_what_is_repeated_after_a_segment_have_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that names something is said once, at the beginning; later segments repeat it."""
    monkeypatch.setattr(writer_module, "FULL_SEGMENT_BYTES", 1)
    source = tmp_path / "a.kgr"
    with_secrets(source, load_gadget("trace_open"), more=40)
    kinds = {record.kind for block in blocks(source) for record in layout.records(block)}
    assert {RecordKind.STATE, RecordKind.EARLIER} <= kinds
    nested = [
        record.data
        for block in blocks(source)
        for record in layout.records(block)
        if record.kind in (RecordKind.STATE, RecordKind.EARLIER)
    ]
    assert any(b"teller-pod-0" in data for data in nested)
    assert any(b"step-of-alice" in data for data in nested)
    redacted(source, tmp_path / "b.kgr")
    after = everything(tmp_path / "b.kgr")
    assert [word for word in (*SECRETS, b"step-of-alice") if word in after] == []
    assert {record.kind for block in blocks(tmp_path / "b.kgr") for record in layout.records(block)} == kinds
    done = [*GADGET, "replay", str(tmp_path / "b.kgr"), "-o", "json"]
    assert subprocess.run(done, check=True, capture_output=True, timeout=60).stdout


def blocks(path: Path) -> list[bytes]:
    """The control blocks."""
    with RecordingReader(path) as reader:
        return [control for _, control, _ in reader.blocks(Damage())]


def test_names_and_rules_of_network_policies_are_taken_out(tmp_path: Path) -> None:
    gadget, path = load_gadget("network_policy"), tmp_path / "a.kgr"
    rows = RowWriter(gadget.as_sent().record)
    rows.add(b"", BOOT_NS + 1, {"policy": b"no-way-out-of-vault", "rule": b"no-way-out-of-vault: egress[0]"})
    writer = RecordingWriter(path, meta_of(RunOptions((GadgetRun(gadget),))), print)
    payload = EventsHeader(0, 1, BOOT_NS + SECOND).encode() + rows.take()
    writer.step(BOOT_NS + SECOND, WALL_NS + SECOND, [RecordedFrame("node-1", FrameType.EVENTS, payload)])
    writer.close({"nodes": {}})
    assert b"no-way-out" in everything(path)
    redacted(path, tmp_path / "b.kgr")
    assert b"no-way-out" not in everything(tmp_path / "b.kgr")


def test_names_of_hosts_selections_paths_with_spaces_and_passwords_of_mounts_are_taken_out(tmp_path: Path) -> None:
    gadget, path = load_gadget("trace_mount"), tmp_path / "a.kgr"
    rows, clocks = RowWriter(gadget.as_sent().record), {"boot_ns": BOOT_NS, "realtime_ns": WALL_NS}
    values: dict[str, Value] = {
        "source": b"//10.9.8.7/shared",
        "target": b"/home/alice/my tax: 'plan', b.pdf",
        "type": b"cifs",
        "options": b"user=u,pass=hunter2",
    }
    rows.add(b"", BOOT_NS + 1, values)
    frames = [
        RecordedFrame("node-1", kind, json.dumps(content).encode())
        for kind, content in (
            (FrameType.HELLO, {"protocol": 1, "agent": "1", "node": "node-1", **clocks}),
            (layout.SELECTED, {"namespaces": ["quiet-ns"], "pods": ["silent-pod"], "exclude_pods": ["own-ns/own-pod"]}),
            (FrameType.STARTED, {"gadgets": [{"name": gadget.name, "programs": []}], **clocks}),
            (
                FrameType.STACKS,
                {"gadget": 0, "first": 0, "frames": ["run\t/home/alice/my app/tool\t0x1"], "stacks": {}},
            ),
        )
    ]
    addresses = [{"type": "ExternalDNS", "address": "ec2-54.example"}, {"type": "InternalIP", "address": "10.1.2.3"}]
    ended = {"exitCode": 1, "containerID": f"containerd://{'ab' * 32}"}
    objects = {
        "nodes": {"metadata": {"name": "node-1", "uid": "u-1"}, "status": {"addresses": addresses}},
        "services": {
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-2"},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb-77.example"}]}},
        },
        "pods": {
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-3"},
            "status": {"containerStatuses": [{"name": "c", "lastState": {"terminated": ended}}]},
        },
    }
    writer = RecordingWriter(path, meta_of(RunOptions((GadgetRun(gadget),))), print)
    changes = {"kinds": {kind: {"put": [item]} for kind, item in objects.items()}, "all": True}
    writer.step(BOOT_NS, WALL_NS, frames, {}, [changes])
    payload = EventsHeader(0, 1, BOOT_NS + SECOND).encode() + rows.take()
    writer.step(BOOT_NS + SECOND, WALL_NS + SECOND, [RecordedFrame("node-1", FrameType.EVENTS, payload)])
    why = "a row matched pod == 'sought'"
    writer.close({"kept": why, "nodes": {"node-1": {"error": "to 2001:db8::7: refused; 4:5:10.9.8.6"}}})
    redacted(path, tmp_path / "b.kgr")
    before, after = everything(path), everything(tmp_path / "b.kgr")
    words = [
        "quiet-ns",
        "silent-pod",
        "own-ns",
        "own-pod",
        "ec2-54",
        "10.1.2.3",
        "lb-77",
        "abab",
        "tax",
        "plan",
        "b.pdf",
    ]
    words += ["tool", "hunter2", "sought", "10.9.8.7", "10.9.8.6", "2001:db8::7"]
    assert [word for word in words if word.encode() not in before] == []
    assert [word for word in words if word.encode() in after] == []


def test_what_diagnose_kept_of_the_cluster_loses_names_and_command_lines(tmp_path: Path) -> None:
    gadget = load_gadget("trace_open")
    container = {
        "name": "vault-container",
        "args": ["--password", "argument-of-alice"],
        "command": ["/bin/serve"],
        "env": [{"name": "PORT"}],
        "ports": [{"name": "http", "containerPort": 80}],
        "livenessProbe": {"exec": {"command": ["check", "argument-of-alice"]}},
    }
    volume = {"name": "data", "secret": {"secretName": "secret-of-alice"}}
    waits = {"reason": "Error", "message": "secret secret-of-alice of ledger-5d4f8c9b7c not found"}
    pod = {
        "metadata": {"name": "ledger-5d4f8c9b7c-abcde", "namespace": "quiet-ns", "uid": UID},
        "spec": {"nodeName": "node-of-alice", "containers": [container], "volumes": [volume]},
        "status": {"containerStatuses": [{"name": "vault-container", "state": {"waiting": waits}}]},
    }
    event = {"metadata": {"name": "e.1"}, "involvedObject": {"kind": "ReplicaSet", "name": "ledger-5d4f8c9b7c"}}
    owner = {"node": "node-of-alice", "namespace": "other-ns", "pod": "peer-of-alice", "container": "c-of-alice"}
    row = {"comm": "http", "args": ["serve", "argument-of-alice"], "local": ADDRESS}
    kept = {
        "objects": {"pods": [pod], "events": [event]},
        "selected": [["quiet-ns", "ledger-5d4f8c9b7c-abcde"]],
        "peers": [["other-ns", "peer-of-alice", "it was deleted"]],
        "peer_rows": [{"gadget": "snapshot_process", "look": "", "at": 1, "owner": owner, "row": row}],
        "unseen": ["other-ns/peer-of-alice was not looked at"],
    }
    source, copy = tmp_path / "a.kgr", tmp_path / "b.kgr"
    writer = RecordingWriter(source, meta_of(RunOptions((GadgetRun(gadget),))), print)
    writer.step(BOOT_NS, WALL_NS, [])
    writer.close({"seconds": 1, "diagnose": kept})
    redacted(source, copy)
    after = everything(copy)
    words = ("alice", "ledger", "quiet-ns", "other-ns", "password", UID, ADDRESS)
    assert [word for word in words if word.encode() in after] == []
    with RecordingReader(copy) as reader:
        made = reader.find_end().end["diagnose"]
    (found,) = made["objects"]["pods"]
    assert found["spec"]["containers"][0]["ports"] == container["ports"], "a port's name is a common word"
    assert made["peer_rows"][0]["row"]["comm"] == "http"
    assert found["metadata"]["name"] == made["selected"][0][1], "the same name becomes the same word"


def test_unknown_members_of_meta_leak_nothing(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    with RecordingReader(tmp_path / "a.kgr") as reader:
        meta = json.loads(json.dumps(reader.meta))
    for number, changes in enumerate(({"policies": {"texts": {"x.yaml": "a"}}}, {"later": ["/home/alice/hidden"]})):
        source, copy = tmp_path / f"{number}.kgr", tmp_path / f"{number}.copy"
        writer = RecordingWriter(source, meta | changes, print)
        writer.step(BOOT_NS, WALL_NS, [])
        writer.close({"seconds": 1})
        if "policies" in changes:
            with pytest.raises(UsageError, match="its policies cannot be read"):
                redacted(source, copy)
        else:
            redacted(source, copy)
            assert b"alice" not in everything(copy)


@pytest.mark.bpf
def test_policies_and_their_events_are_left_out_and_processes_stay(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace("name: passwd", "name: guard-of-the-vault"))
    recorded(tmp_path / "a.kgr", "observe", "-f", str(policy))
    redactor = redacted(tmp_path / "a.kgr", tmp_path / "b.kgr")
    before, after = everything(tmp_path / "a.kgr"), everything(tmp_path / "b.kgr")
    for word in (b"guard-of-the-vault", b"/etc/passwd", b"sys_openat"):
        assert word in before
        assert word not in after
    assert redactor.counts["policies", "EVENTS"] > 0
    shown = [*GADGET, "replay", str(tmp_path / "b.kgr"), "-o", "json"]
    done = subprocess.run(shown, check=True, capture_output=True, text=True)
    kinds = {next(iter(json.loads(line))) for line in done.stdout.splitlines()}
    assert "process_exec" in kinds
    assert "process_kprobe" not in kinds


def test_what_belongs_together_stays_together(tmp_path: Path) -> None:
    with_secrets(tmp_path / "a.kgr", load_gadget("trace_tcp"))
    with_secrets(tmp_path / "c.kgr", load_gadget("trace_tcp"))
    redacted(tmp_path / "a.kgr", tmp_path / "b.kgr")
    redacted(tmp_path / "c.kgr", tmp_path / "d.kgr")
    rows = []
    for name in ("b", "d"):
        to_files([tmp_path / f"{name}.kgr"], "jsonl", tmp_path / name, io.StringIO())
        rows += [json.loads(line) for line in (tmp_path / name / "tcp.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert len({(row["pod"], row["node"], row["local"], row["comm"]) for row in rows}) == 1
    assert rows[0]["local"] == rows[0]["remote"]
    assert ipaddress.ip_address(rows[0]["local"]) in ipaddress.ip_network("240.0.0.0/4")
    assert rows[0]["pod"] == rows[0]["comm"], "the pod's name was the process's, too"


@pytest.mark.bpf
def test_a_real_recording_loses_what_it_must_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    rows = recorded(tmp_path / "a.kgr", "trace", "exec+open+process+tcp")
    redactor = redacted(tmp_path / "a.kgr", tmp_path / "b.kgr")
    after = everything(tmp_path / "b.kgr")
    taken = {str(row[name]) for row in rows for name in ("path", "resolved", "exe", "cwd") if row.get(name)}
    below_home = [path for path in taken if path.startswith(("/root/", "/home/"))]
    assert [path for path in below_home if path.encode() in after] == []
    arguments = {" ".join(map(str, row["args"])) for row in rows if isinstance(row.get("args"), list)}
    assert [text for text in arguments if len(text) > 12 and "\0".join(text.split(" ")).encode() in after] == []
    to_files([tmp_path / "b.kgr"], "jsonl", tmp_path / "rows", io.StringIO())
    for event in ("exec", "open", "process", "tcp"):
        found = (
            [json.loads(line) for line in (tmp_path / "rows" / f"{event}.jsonl").read_text().splitlines()]
            if (event != "process")
            else [json.loads(line) for line in (tmp_path / "rows" / "process_events.jsonl").read_text().splitlines()]
        )
        wanted = [row for row in rows if row["event"] == event]
        assert [row["pid"] for row in found] == [row["pid"] for row in wanted]
        assert [row["timestamp"] for row in found] == [row["timestamp"] for row in wanted]
    assert redactor.counts["arguments", "trace_exec.args"] == sum(
        row["event"] == "exec" and row["args"] is not None for row in rows
    )


def test_own_rules_take_names_that_are_not_utf8_too() -> None:
    redactor = Redactor([RedactionRule("logs", "remove", match="/var/log/[^ ]*")], b"")

    taken = redactor.text("cat \udcff /var/log/\udcffsecret é", "x")

    assert taken.startswith("cat \udcff /")
    assert "secret" not in taken
    assert taken.endswith(" é")


def test_own_rules_take_what_they_say_and_no_more(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    redactor = redacted(
        tmp_path / "a.kgr", tmp_path / "b.kgr", [RedactionRule("logs", "remove", match="/var/log/[^ ]*")]
    )
    after = everything(tmp_path / "b.kgr")
    assert b"/var/log" not in after
    assert b"/etc/ssl/certs/ca-certificates.crt" in after
    assert b"pod-7" in after
    assert set(redactor.counts) == {("logs", "trace_open.path"), ("command", "META.selection")}


def test_each_different_value_is_rewritten_once_per_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def text(self: Redactor, value: str, where: str, times: int = 1) -> str:
        asked.append(value)
        return text_of(self, value, where, times)

    text_of = Redactor.text
    monkeypatch.setattr(Redactor, "text", text)
    opens(tmp_path / "a.kgr", 20_000, per_frame=20)
    redactor = redacted(tmp_path / "a.kgr", tmp_path / "b.kgr", [RedactionRule("logs", "hash", match="/var/log/[^ ]*")])
    assert redactor.counts["logs", "trace_open.path"] == everything(tmp_path / "a.kgr").count(b"/var/log/") > 1000
    with RecordingReader(tmp_path / "b.kgr") as reader:
        segments = sum(1 for _ in reader.blocks(Damage()))
    logs = Counter(value for value in asked if value.startswith("/var/log/"))
    assert max(logs.values()) <= segments < redactor.counts["logs", "trace_open.path"]


def test_one_frame_that_cannot_be_read_is_left_out_and_its_neighbours_are_copied(tmp_path: Path) -> None:
    gadget, path = load_gadget("trace_open"), tmp_path / "a.kgr"
    rows = RowWriter(gadget.as_sent().record)
    writer = RecordingWriter(path, meta_of(RunOptions((GadgetRun(gadget),))), print)
    for number in range(3):
        rows.add(b"", BOOT_NS + number, {"path": f"/home/alice/{number}".encode()})
        data = rows.take() if number != 1 else rows.take()[:-8] + b"\xff" * 8 + b"\xff\xff\xff\x3f" + bytes(4)
        payload = EventsHeader(0, number + 1, BOOT_NS + SECOND + number).encode() + data
        writer.step(BOOT_NS + SECOND + number, WALL_NS + SECOND, [RecordedFrame("n", FrameType.EVENTS, payload)])
    writer.close({"nodes": {}})
    redactor = Redactor(read_rules("default"), b"0123456789abcdef")
    with (tmp_path / "b.kgr").open("xb") as stream:
        assert redact(path, stream, redactor).left_out == 1
    assert redactor.counts["homes", "trace_open.path"] == 2, "what was counted of frames read in vain is forgotten"
    assert b"alice" not in everything(tmp_path / "b.kgr")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", ":1:1: must be a mapping, not a list"),
        ("{}", ":1:1: lacks rules"),
        ("rules: [{take: names}]", r"rules\[0\] lacks action"),
        ("rules: [{take: secrets, action: hash}]", "take 'secrets' is not known; it is one of arguments"),
        ("rules: [{match: '(', action: hash}]", r"regular expression of RE2: missing \): \("),
        ("rules: [{action: hash}]", "either `take` or `match`"),
        ("rules: [{take: names, action: hash, x: y}]", r":1:37: rules\[0\].x is not known"),
        ("rules: [{match: '', action: hash}]", "either `take` or `match`"),
        ("rules: [{match: 12, action: hash}]", "in quotes"),
        ("rules: [{match: a, action: hash, action: remove}]", "action is set twice"),
        ("rules: [1]", "must be a mapping, not '1'"),
    ],
)
def test_wrong_rules_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_rules(str(tmp_path / "rules.yaml"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(60))
@given(data=st.data())
def test_hostile_recordings_are_copied_or_refused_in_words(data: st.DataObject, tmp_path: Path) -> None:
    source, copy = tmp_path / "a.kgr", tmp_path / "b.kgr"
    if not source.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writer_module, "FULL_SEGMENT_BYTES", 1)
            with_secrets(source, load_gadget("trace_file"), more=20)
    with RecordingReader(source) as reader:
        # Of the segments that say what was run, one has a STATE, and one repeats the one before it.
        segments = [segment for segment in reader.blocks(Damage()) if segment[0].number in (0, 1, 8)]
    header, *parts = data.draw(st.sampled_from(segments))
    blocks = [bytearray(part) for part in parts]
    block = data.draw(st.sampled_from([block for block in blocks if block]))
    for _ in range(data.draw(st.integers(1, 8))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "hostile.kgr"
    path.write_bytes(_one_segment(header, *map(bytes, blocks)))
    copy.unlink(missing_ok=True)
    try:
        with copy.open("xb") as stream:
            redact(path, stream, Redactor(read_rules("default"), b"0123456789abcdef"))
    except UsageError:
        return
    assert b"/home/alice/hidden" not in everything(copy)


def _one_segment(header: Any, control: bytes, events: bytes) -> bytes:
    import zlib
    from dataclasses import replace

    packed = layout.compress(control), layout.compress(events)
    changed = replace(
        header,
        control_stored=len(packed[0]),
        control_bytes=len(control),
        events_stored=len(packed[1]),
        events_bytes=len(events),
        control_crc=zlib.crc32(packed[0]),
        events_crc=zlib.crc32(packed[1]),
    )
    return b"".join((layout.file_header(), changed.encode(), *packed))


def test_the_command_counts_what_it_took_and_overwrites_nothing(tmp_path: Path) -> None:
    with_secrets(tmp_path / "a.kgr", load_gadget("trace_exec"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*GADGET, "recording", "redact", str(tmp_path / "a.kgr"), *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    done = run(str(tmp_path / "b.kgr"), "-o", "json")
    assert done.returncode == 0, done.stderr
    taken = {(item["rule"], item["where"]): item["count"] for item in json.loads(done.stdout)["taken"]}
    assert taken["arguments", "trace_exec.args"] == 1
    assert os.stat(tmp_path / "b.kgr").st_mode & 0o777 == 0o600
    again = run(str(tmp_path / "b.kgr"))
    assert (again.returncode, "exists" in again.stderr) == (2, True)
    (tmp_path / "key").write_bytes(b"short")
    short = run(str(tmp_path / "c.kgr"), "--secret-file", str(tmp_path / "key"))
    assert (short.returncode, "fewer than 16 bytes" in short.stderr) == (2, True)
    endless = run(str(tmp_path / "c.kgr"), "--secret-file", "/dev/urandom")
    assert (endless.returncode, "more than 1,048,576 bytes" in endless.stderr) == (2, True)
    assert not (tmp_path / "c.kgr").exists()
