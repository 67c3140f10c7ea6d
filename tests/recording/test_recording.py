"""Files of recordings: what is written is what is read, and what is damaged is named, skipped and counted."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.recording import layout, places, writer
from kubectl_gadget.recording.layout import SEGMENT_BYTES, Compression, DamagedError, RecordKind
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.wire.frames import FrameType
from tests.examples import examples
from tests.recording.files import META, SECOND, frame, read, write


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = write(tmp_path / "a.kgr")
    with RecordingReader(tmp_path / "a.kgr") as reader:
        assert reader.meta == META
        assert list(reader.steps()) == made
        assert reader.end == {"seconds": 3}
        assert (reader.damage.segments, reader.damage.is_cut, reader.dropped) == (0, False, 0)


def test_many_segments_are_one_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1000)
    made = write(tmp_path / "a.kgr", steps=50)
    with RecordingReader(tmp_path / "a.kgr") as reader:
        assert sum(1 for _ in reader.segments()) > 8
        assert list(reader.steps()) == made


def test_a_file_that_exists_is_not_touched_and_a_new_one_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "a.kgr").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        RecordingWriter(tmp_path / "a.kgr", META, print)
    assert (tmp_path / "a.kgr").read_text() == "mine"
    write(tmp_path / "b.kgr")
    assert (tmp_path / "b.kgr").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name", ["a#1.kgr", "x?y.kgr", "a%41.kgr", "a\\b.kgr", "n*.kgr", "sub/..", ".", "f#/a", "f//a"]
)
def test_a_url_that_would_name_another_place_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"bucket cannot"):
        places.place_of(f"s3://bucket/{name}")
    if not set("*?") & set(name):
        with pytest.raises(UsageError, match=r"bucket cannot"):
            places.places_of([f"s3://bucket/{name}"])


def test_a_pattern_matches_only_names_that_a_url_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kubectl_gadget.recording.places.names_beside", lambda url: ["a1.kgr", "a#.kgr", "a2.kgr", "b1.kgr"]
    )
    assert list(map(str, places.places_of(["s3://bucket/f/a?.kgr"]))) == [
        "s3://bucket/f/a1.kgr",
        "s3://bucket/f/a2.kgr",
    ]


def test_a_full_disk_ends_the_recording_and_what_is_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1000)
    real, left = os.write, [3000]

    def full(file: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(file, data[: left[0]])
        left[0] -= count
        return count

    failed: list[str] = []
    monkeypatch.setattr(places.os, "write", full)
    made = write(tmp_path / "a.kgr", steps=200, failed=failed)
    monkeypatch.undo()
    assert len(failed) == 1
    assert "No space left on device. The run continues" in failed[0]
    found = read(tmp_path / "a.kgr")
    assert 0 < len(found) < 200
    assert found == made[: len(found)]


@pytest.mark.root
def test_a_full_file_system_ends_the_recording_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1000)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        failed: list[str] = []
        recording = RecordingWriter(small / "a.kgr", META, failed.append)
        for number in range(400):
            noise = random.Random(number).randbytes(500).hex()
            recording.step(number, number, [frame(f"{number}:{noise}")])
        assert not recording.close({})
        assert len(failed) == 1
        assert "No space left on device. The run continues" in failed[0]
        numbers = [step.now_ns for step in read(small / "a.kgr")]
        assert numbers == list(range(len(numbers)))
        assert 10 < len(numbers) < 400
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_slow_disk_costs_events_that_are_counted_and_never_what_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = os.write

    def slow(file: int, data: memoryview) -> int:
        begun.set()
        go_on.wait()
        return real(file, data)

    monkeypatch.setattr(writer, "WAITING_BYTES", 1000)
    monkeypatch.setattr(places.os, "write", slow)
    recording = RecordingWriter(tmp_path / "a.kgr", META, print)
    begun.wait()
    for number in range(10):
        frames = [frame("{}", type=FrameType.CONTAINERS), frame("x" * 400)]
        recording.step(number, number, frames)
    go_on.set()
    assert not recording.close({})
    assert recording.dropped == 8 * 400
    with RecordingReader(tmp_path / "a.kgr") as reader:
        frames = [found for step in reader.steps() for found in step.frames]
        assert [found.type for found in frames].count(FrameType.CONTAINERS) == 10
        assert [found.type for found in frames].count(FrameType.EVENTS) == 2
        assert reader.dropped == 8 * 400


def test_a_part_has_all_frames_of_names_and_only_its_own_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 500)
    write(tmp_path / "a.kgr", steps=20)
    with RecordingReader(tmp_path / "a.kgr") as reader:
        found = list(reader.steps(110 * SECOND, 112 * SECOND))
    assert [step.wall_ns // SECOND for step in found] == list(range(100, 113))
    kept = [frame.payload[:2] for step in found for frame in step.frames if frame.type == FrameType.EVENTS]
    assert kept == [b"10", b"11", b"12"]
    assert sum(frame.type == FrameType.CONTAINERS for step in found for frame in step.frames) == 13


def test_a_file_that_was_cut_anywhere_reads_up_to_its_last_whole_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 400)
    made, whole = write(tmp_path / "a.kgr", steps=8), (tmp_path / "a.kgr").read_bytes()
    cut = tmp_path / "cut.kgr"
    before = 0
    for size in range(0, len(whole), 7):
        cut.write_bytes(whole[:size])
        try:
            with RecordingReader(cut) as reader:
                found = list(reader.steps())
                assert reader.end is None
        except UsageError:
            assert not before, "once its first segment is there it can be read"
            continue
        assert found == made[: len(found)]
        assert len(found) >= before
        before = len(found)
    assert before >= 5


def test_a_flipped_bit_is_named_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 400)
    write(tmp_path / "a.kgr", steps=8)
    whole = (tmp_path / "a.kgr").read_bytes()
    spoilt = tmp_path / "spoilt.kgr"
    chance = random.Random(1)
    for place in sorted(chance.sample(range(layout.FILE_BYTES, len(whole)), 120)):
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        spoilt.write_bytes(data)
        with RecordingReader(spoilt) as reader:
            found = list(reader.steps())
            assert reader.damage.segments == 1 or reader.damage.is_cut
        frames = [frame for step in found for frame in step.frames]
        assert len(frames) < 16 or reader.end is None
        if not reader.damage.is_cut:
            names = [frame.payload for frame in frames if frame.type == FrameType.CONTAINERS]
            assert len(names) >= 8 or reader.end is None, "what a damaged segment names is in the next one, too"


@pytest.mark.parametrize("moment", range(int(os.environ.get("KILLS", "6"))))
def test_a_writer_that_is_killed_leaves_what_reads(tmp_path: Path, moment: int) -> None:
    """200 moments: KILLS=200 python -m pytest tests/recording -k killed"""
    code = (
        "import sys; from pathlib import Path; from kubectl_gadget.recording import writer\n"
        "from tests.recording.files import META, frame\n"
        "writer.FULL_SEGMENT_BYTES = 2000\n"
        "to = writer.RecordingWriter(Path(sys.argv[1]), META, print)\n"
        "n = 0\n"
        "while True:\n"
        "    to.step(n, n, [frame(f'{n}:' + 'x' * 300)]); n += 1\n"
        "    if n % 20 == 0: print(n, flush=True)\n"
    )
    path = tmp_path / "killed.kgr"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2 + random.Random(moment).randrange(200)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    try:
        found = read(path)
    except UsageError:
        assert path.stat().st_size < 1000, "not even its first segment was written"
        return
    numbers = [int(step.frames[0].payload.partition(b":")[0]) for step in found if step.frames]
    assert numbers == sorted(numbers)
    assert numbers[:3] == [0, 1, 2]


def test_other_files_are_refused_and_so_is_a_later_major_version(tmp_path: Path) -> None:
    path = tmp_path / "a.kgr"
    for data in (b"", b"\x7fELF" + b"\0" * 60, layout.MAGIC):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="not a recording"):
            RecordingReader(path)
    write(tmp_path / "b.kgr")
    data = bytearray((tmp_path / "b.kgr").read_bytes())
    data[10] = 7  # a later minor version
    path.write_bytes(data)
    assert len(read(path)) == 3
    data[8] = 2
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"version 2.7 of the format"):
        RecordingReader(path)
    with pytest.raises(UsageError, match="No such file"):
        RecordingReader(tmp_path / "none")
    with pytest.raises(UsageError, match="directory"):
        RecordingReader(tmp_path)


def test_records_of_later_minor_versions_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.kgr"
    control = layout.record(RecordKind.META, b'{"a":1}') + layout.record(200, b"new")  # type: ignore[arg-type]
    path.write_bytes(layout.file_header() + _segment(control + layout.step_record(1, 2)))
    with RecordingReader(path) as reader:
        assert [(step.now_ns, step.wall_ns) for step in reader.steps()] == [(1, 2)]


def _segment(control: bytes, events: bytes = b"", **other: int) -> bytes:
    packed, packed_events = zlib.compress(control), zlib.compress(events)
    header = layout.SegmentHeader(
        0,
        0,
        0,
        Compression.ZLIB,
        len(packed),
        len(control),
        len(packed_events),
        len(events),
        zlib.crc32(packed),
        zlib.crc32(packed_events),
    )
    return replace(header, **other).encode() + packed + packed_events


def test_a_small_file_has_no_millions_of_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_RECORDS", 1000)
    assert len(list(layout.records(layout.step_record(1, 1) * 1000))) == 1000
    with pytest.raises(DamagedError, match="more records"):
        for _ in layout.records(layout.step_record(1, 1) * 1001):
            pass


def test_a_block_that_claims_to_be_small_and_is_not_is_refused() -> None:
    bomb = zlib.compress(b"\0" * (20 << 20))
    with pytest.raises(DamagedError, match="should have 100"):
        layout.decompress(bomb, Compression.ZLIB, 100)
    with pytest.raises(DamagedError, match="larger than the format"):
        layout.decode_header(_segment(b"", b"", control_bytes=layout.MOST_CONTROL + 1)[:SEGMENT_BYTES])
    with pytest.raises(DamagedError, match="unknown method"):
        layout.decompress(b"", 77, 0)


@given(st.binary(max_size=400))
@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_control_blocks_never_break_a_reader(tmp_path: Path, control: bytes) -> None:
    path = tmp_path / "hostile.kgr"
    meta = layout.record(RecordKind.META, b"{}")
    path.write_bytes(layout.file_header() + _segment(meta + control) + _segment(control, control))
    with RecordingReader(path) as reader:
        list(reader.steps())
        list(reader.segments())


@given(st.lists(st.sampled_from([layout.MARK, b"\0" * 60, b"KG", _segment(b"x")[:40], _segment(b"")]), max_size=30))
@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_files_never_break_a_reader(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "hostile.kgr"
    meta = _segment(layout.record(RecordKind.META, b"{}"))
    path.write_bytes(layout.file_header() + meta + b"".join(pieces))
    with RecordingReader(path) as reader:
        assert list(reader.steps()) == []
