"""Converted recordings have the rows of the run: same names, types and values, in formats that other programs read."""

import csv
import gc
import io
import json
import os
import struct
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from kubectl_gadget.analysis import parquet
from kubectl_gadget.analysis.conversion import to_files, to_one_file, to_parquet
from kubectl_gadget.analysis.views import table_name
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets import load_gadget, load_index
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.recording import writer
from kubectl_gadget.rows.amounts import nanoseconds
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.views import RowWriter
from kubectl_gadget.run.run_options import Moment
from tests.analysis.recordings import SECOND, WALL_NS, opens, recorded
from tests.gadget_run import GADGET

pytestmark = pytest.mark.usefixtures("catalogue_built")
KINDS = {
    "streams": ("trace", "exec+open+tcp+process"),
    "system calls": ("trace", "syscalls"),
    "top": ("top", "file", "--interval", "500ms"),
    "snapshot": ("snapshot", "process"),
    "profile": ("profile", "cpu"),
    "histogram": ("profile", "syscall"),
    "tcpdump": ("tcpdump",),
}


def table_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of a table, with its times in ns."""
    rows = []
    for file in sorted(folder.rglob("*.parquet")):
        table = pq.ParquetFile(file).read()
        for place, field in enumerate(table.schema):
            if str(field.type).startswith("timestamp"):
                table = table.set_column(place, field.name, table.column(place).cast("int64"))
        rows += table.to_pylist()
    return rows


def as_json(row: dict[str, Any], gadget: Gadget) -> dict[str, Any]:
    """A row without what JSON leaves out."""
    from kubectl_gadget.rows.members import row_members

    optional = {member.name for member in row_members(gadget) if member.optional}
    return {name: value for name, value in row.items() if name not in optional or value not in (None, False)}


def test_what_is_written_is_freed_without_a_search_for_cycles() -> None:
    """A search takes a fifth of the time of a conversion."""
    gc.collect()
    gc.disable()
    try:
        for name in (entry.name for entry in load_index()):
            gadget = load_gadget(name)
            writer = RowWriter(gadget.record)
            for row in range(100):
                writer.add(b"", row, {})
            batch = decode(gadget, "node", writer.take())
            kept = weakref.ref(batch.buffer)
            parquet.record_batch(batch, parquet.schema_of(gadget))
            batch.forget_columns()
            del batch
            assert kept() is None, name
    finally:
        gc.enable()


@pytest.mark.bpf
@pytest.mark.parametrize("kind", KINDS)
def test_parquet_has_the_rows_of_the_run(kind: str, tmp_path: Path) -> None:
    rows = recorded(tmp_path / "run.kgr", *KINDS[kind])
    words = KINDS[kind]
    names = ["_".join(filter(None, (*words[:1], *name.split()))) for name in words[1:2] or [""]]
    gadgets = (
        [load_gadget(f"{words[0]}_{name}") for name in words[1].split("+")]
        if len(words) > 1
        else [load_gadget(names[0])]
    )
    code, counts = to_parquet([tmp_path / "run.kgr"], tmp_path / "lake", io.StringIO())
    assert code == 0
    assert rows
    for gadget in gadgets:
        found = [as_json(row, gadget) for row in table_of(tmp_path / "lake" / table_name(gadget))]
        wanted = [
            {name: value for name, value in row.items() if name not in ("event", "late")}
            for row in rows
            if row.get("event", gadget.event) == gadget.event
        ]
        for row in wanted:
            row.update({name: nanoseconds(str(row[name])) for name in ("timestamp", "started") if _is_time(row, name)})
        assert Counter(map(_line, found)) == Counter(map(_line, wanted))
        assert counts.get(table_name(gadget), 0) == len(wanted)


def _is_time(row: dict[str, object], name: str) -> bool:
    return isinstance(row.get(name), str) and str(row[name]).endswith("Z")


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def test_many_runs_and_nodes_are_one_dataset_that_says_what_it_lacks(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 8000)
    opens(tmp_path / "b.kgr", 6000, nodes=3)
    errors = io.StringIO()
    code, counts = to_parquet([tmp_path / "a.kgr", tmp_path / "b.kgr"], tmp_path / "lake", errors)
    assert (code, counts) == (0, {"open": 14000})
    query = duckdb.connect()
    source = f"read_parquet('{tmp_path}/lake/open/**/*.parquet', hive_partitioning=true)"
    found = query.execute(f"select count(*), count(distinct run), count(distinct node) from {source}").fetchone()
    assert found == (14000, 2, 3)
    first = query.execute(f"select min(epoch_ns(timestamp)), min(date)::varchar from {source}").fetchone()
    assert first == (1_790_000_000_000_000_000, "2026-09-21")
    types = dict(query.execute(f"select column_name, column_type from (describe select * from {source})").fetchall())
    assert types["timestamp"].startswith("TIMESTAMP")
    assert (types["pid"], types["cgroup"], types["path_cut"]) == ("UINTEGER", "UBIGINT", "BOOLEAN")
    file = next((tmp_path / "lake" / "open").rglob("*.parquet"))
    schema = pq.read_schema(file)
    assert str(schema.field("timestamp").type) == "timestamp[ns, tz=UTC]"
    assert str(schema.field("pod").type).startswith("dictionary<values=string")
    said = pq.read_metadata(file).metadata
    assert json.loads(said[b"kubectl_gadget.run"])["command"] == ["trace", "open"]
    assert set(json.loads(said[b"kubectl_gadget.loss"])["nodes"]) <= {"node-0", "node-1", "node-2"}
    assert "path" in json.loads(said[b"kubectl_gadget.gadgets"])[0]["columns"]
    pods = query.execute(f"select count(*) from '{tmp_path}/lake/containers/**/*.parquet'").fetchone()
    assert pods == (60 * 5,), "of each node of each run"
    assert os.stat(file).st_mode & 0o777 == 0o600


def test_a_recording_is_added_once(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", io.StringIO())
    with pytest.raises(UsageError, match="has this recording already"):
        to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", io.StringIO())


def test_a_part_of_several_files_is_counted_from_the_end_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer.time, "time_ns", lambda: WALL_NS)
    for number, events in enumerate((2000, 8000)):  # of 0.2 and 0.8 s
        opens(tmp_path / f"{number}.kgr", events)
    files = [tmp_path / "0.kgr", tmp_path / "1.kgr"]
    for name, since in (("ago", Moment(ago_ns=SECOND * 5 // 10)), ("at", Moment(WALL_NS + SECOND * 3 // 10))):
        code, rows = to_parquet(files, tmp_path / name, io.StringIO(), (since, None))
        assert (code, rows) == (0, {"open": 6000})
    with pytest.raises(UsageError, match="after the end"):
        to_parquet(files, tmp_path / "none", io.StringIO(), (Moment(WALL_NS + 9 * SECOND), None))


def test_rows_of_two_days_are_in_two_partitions(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 4000, seconds_apart=86400 / 2)
    to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", io.StringIO())
    days = sorted(path.name for path in (tmp_path / "lake" / "open").iterdir())
    assert len(days) == 2
    for day in days:
        for row in table_of(tmp_path / "lake" / "open" / day):
            assert row["timestamp"] // (86400 * SECOND) == int(
                __import__("datetime").date.fromisoformat(day.removeprefix("date=")).toordinal() - 719163
            )


def test_what_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(tmp_path / "a.kgr", 8000)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet._OpenFile, "write", full)
    with pytest.raises(GadgetError, match="No space left"):
        to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", io.StringIO())
    assert [path for path in (tmp_path / "lake").rglob("*") if path.is_file()] == []


def test_an_interruption_while_files_get_their_names_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens(tmp_path / "a.kgr", 2000)
    rename, calls = Path.rename, list[Path]()

    def interrupted(path: Path, to: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", io.StringIO())
    assert [path for path in (tmp_path / "lake").rglob("*") if path.is_file()] == []
    assert to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", io.StringIO())[1] == {"open": 2000}


@pytest.mark.parametrize("format", ["parquet", "jsonl", "perfetto"])
def test_a_full_disk_and_a_folder_that_cannot_be_made_are_named(format: str, tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)

    def convert(destination: Path, most: str) -> subprocess.CompletedProcess[str]:
        words = [*GADGET, "recording", "convert", str(tmp_path / "a.kgr"), "-o", format, str(destination)]
        limited = ["bash", "-c", f'ulimit -f {most}; exec "$@"', "-", *words]
        return subprocess.run(limited, check=False, capture_output=True, text=True, timeout=120)

    full, no_folder = convert(tmp_path / "out", "4"), convert(tmp_path / "a.kgr" / "out", "unlimited")
    assert "cannot be written: File too large" in full.stderr
    assert "Not a directory" in no_folder.stderr
    assert "internal error" not in full.stderr + no_folder.stderr
    assert 0 not in (full.returncode, no_folder.returncode)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "a.kgr"]


def test_names_in_a_recording_never_become_file_names(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    hostile = renamed(tmp_path / "a.kgr", tmp_path / "b.kgr", "../../../tmp/x y/'")
    to_parquet([hostile], tmp_path / "lake", io.StringIO())
    to_files([hostile], "csv", tmp_path / "rows", io.StringIO())
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["_tmp_x_y_.csv"]
    assert sorted(path.name for path in (tmp_path / "lake").iterdir()) == ["_tmp_x_y_", "containers", "coverage"]


def renamed(source: Path, path: Path, word: str) -> Path:
    """The same recording whose gadget has another command."""
    from kubectl_gadget.recording.reader import RecordingReader
    from kubectl_gadget.recording.writer import RecordingWriter

    with RecordingReader(source) as reader:
        meta = json.loads(json.dumps(reader.meta))
        meta["gadgets"][0]["description"]["command"] = ["trace", word]
        writer = RecordingWriter(path, meta, print)
        for step in reader.steps():
            writer.step(step.now_ns, step.wall_ns, step.frames, step.answers)
        writer.close(reader.end or {})
    return path


@pytest.mark.bpf
def test_json_lines_and_csv_have_a_file_for_each_gadget(tmp_path: Path) -> None:
    rows = recorded(tmp_path / "run.kgr", "trace", "exec+open")
    to_files([tmp_path / "run.kgr"], "jsonl", tmp_path / "json", io.StringIO())
    to_files([tmp_path / "run.kgr"], "csv", tmp_path / "csv", io.StringIO())
    for event in ("exec", "open"):
        wanted = [
            {name: value for name, value in row.items() if name != "event"} for row in rows if row["event"] == event
        ]
        lines = (tmp_path / "json" / f"{event}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == wanted, "in the same order"
        with (tmp_path / "csv" / f"{event}.csv").open(newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == [row["path"] or "" for row in wanted]


@pytest.mark.bpf
def test_packets_and_profiles(tmp_path: Path) -> None:
    rows = recorded(tmp_path / "dump.kgr", "tcpdump")
    to_one_file([tmp_path / "dump.kgr"], "pcap-ng", tmp_path / "a.pcapng", io.StringIO())
    assert sum(kind == 6 for kind in blocks((tmp_path / "a.pcapng").read_bytes())) == len(rows)
    recorded(tmp_path / "cpu.kgr", "profile", "cpu")
    to_one_file([tmp_path / "cpu.kgr"], "speedscope", tmp_path / "a.json", io.StringIO())
    assert json.loads((tmp_path / "a.json").read_text())["profiles"]
    to_one_file([tmp_path / "cpu.kgr"], "pprof", tmp_path / "a.pprof", io.StringIO())
    assert (tmp_path / "a.pprof").read_bytes()[:2] == b"\x1f\x8b"
    with pytest.raises(UsageError, match="the recording has profile cpu"):
        to_one_file([tmp_path / "cpu.kgr"], "pcap-ng", tmp_path / "b", io.StringIO())
    assert not (tmp_path / "b").exists()


def blocks(data: bytes) -> list[int]:
    """The kinds of the blocks of a pcap-ng file."""
    found, place = [], 0
    while place < len(data):
        kind, length = struct.unpack_from("<II", data, place)
        found.append(kind)
        place += length
    return found


def test_a_damaged_recording_is_converted_as_far_as_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 100_000)
    opens(tmp_path / "a.kgr", 8000)
    data = (tmp_path / "a.kgr").read_bytes()
    (tmp_path / "b.kgr").write_bytes(data[: len(data) // 2])
    errors = io.StringIO()
    code, counts = to_parquet([tmp_path / "b.kgr"], tmp_path / "lake", errors)
    assert code == 0
    assert 0 < counts["open"] < 8000
    assert "the file ends within a segment" in errors.getvalue()
    file = next((tmp_path / "lake" / "open").rglob("*.parquet"))
    assert json.loads(pq.read_metadata(file).metadata[b"kubectl_gadget.loss"])["cut"] is True


def test_without_the_package_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    hide = "import sys; sys.modules['pyarrow'] = None; from kubectl_gadget.cli.main import main; main()"
    words = ("recording", "convert", str(tmp_path / "a.kgr"), str(tmp_path / "lake"))
    done = subprocess.run([sys.executable, "-c", hide, *words], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "needs the package pyarrow" in done.stderr
    assert "pip install 'kubectl-gadget[query]'" in done.stderr


def check_arrows(items: list[dict[str, Any]]) -> None:
    """As Perfetto imports them, which otherwise drops an arrow: its id is a hexadecimal number of 64 bits that begins
    once, before it ends, and each of its ends is within a slice of the same thread."""
    slices = {(item["pid"], item["tid"], item["ts"]) for item in items if item["ph"] == "X" and item["dur"] > 0}
    begun, ended = dict[int, float](), list[int]()
    for item in items:
        if item["ph"] not in "sf":
            continue
        id = int(item["id"], 16)
        assert 0 <= id < 1 << 64
        assert (item["pid"], item["tid"], item["ts"]) in slices
        if item["ph"] == "s":
            assert id not in begun
            begun[id] = item["ts"]
        else:
            assert item["bp"] == "e"
            assert begun[id] <= item["ts"]
            ended.append(id)
    assert ended, "arrows with both ends"
    assert len(ended) == len(set(ended))


@pytest.mark.bpf
def test_a_trace_for_perfetto_has_tracks_slices_marks_and_arrows(tmp_path: Path) -> None:
    rows = recorded(tmp_path / "run.kgr", "trace", "exec+exit+tcp")
    to_one_file([tmp_path / "run.kgr"], "perfetto", tmp_path / "a.json", io.StringIO())
    trace = json.loads((tmp_path / "a.json").read_text())
    began = int(trace["otherData"]["began_ns"])
    assert 0 < began < nanoseconds(str(rows[0]["timestamp"]))
    items = trace["traceEvents"]
    phases = Counter(item["ph"] for item in items)
    assert phases["X"] + phases["b"] + phases["i"] == len(rows)
    assert phases["b"] == phases["e"]
    tracks = {item["pid"] for item in items if item["name"] == "process_name"}
    assert {item["pid"] for item in items if item["ph"] in "Xbei"} == tracks
    begun = {item["id"]: item for item in items if item["ph"] == "b"}
    ended = {item["id"]: item for item in items if item["ph"] == "e"}
    assert all(begun[id]["ts"] <= ended[id]["ts"] for id in begun)
    lasted = [(ended[id]["ts"] - begun[id]["ts"]) * 1000 for id in begun if begun[id]["cat"] == "exit"]
    assert Counter(map(round, lasted)) == Counter(row["run_time"] for row in rows if row["event"] == "exit")
    assert all(item["ts"] >= 0 for item in items if "ts" in item)
    check_arrows(items)
    recorded(tmp_path / "cpu.kgr", "profile", "cpu")
    with pytest.raises(UsageError, match="profile cpu has none"):
        to_one_file([tmp_path / "cpu.kgr"], "perfetto", tmp_path / "b.json", io.StringIO())
