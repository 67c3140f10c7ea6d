"""Rotated files and the ring: each file is read alone, and all of them together are what was recorded."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.recording import layout, places, writer
from kubectl_gadget.recording.reader import RecordedIntake, RecordingReader
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter, Ring, Rotation
from kubectl_gadget.wire.frames import FrameType
from tests.recording.files import META, SECOND
from tests.recording.test_segments import containers, everything, known, pod

BYTES = 3000


@pytest.fixture(autouse=True)
def one_step_per_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1)


def record(to: RecordingWriter, begin: int, end: int) -> list[RecordedIntake]:
    """In each of these seconds: a new container, a new pod, an answer, and an event that is not compressed well."""
    made = []
    for number in range(begin, end):
        data = b"".join(bytes([number * 7 % 256, place * 31 % 256]) for place in range(100))
        frames = [containers(number), RecordedFrame("n1", FrameType.EVENTS, f"{number:024}".encode() + data)]
        changes = {"kinds": {"pods": {"put": [pod(number)], "gone": [f"u{number - 5}"]}}}
        step = RecordedIntake(
            number * SECOND, number * SECOND, frames, {f"a{number}": True}, (layout.to_json(changes),)
        )
        to.step(*step[:4], (changes,))
        made.append(step)
    return made


def read(*paths: Path, **part: int) -> list[RecordedIntake]:
    with RecordingReader(*paths) as reader:
        steps = list(reader.steps(**part))
        assert not reader.damage.segments
        assert not reader.damage.is_cut
        return steps


def test_rotated_files_together_are_the_recording_and_each_is_read_alone(tmp_path: Path) -> None:
    to = RecordingWriter(tmp_path / "a.kgr", META, print, Rotation(bytes=BYTES))
    made = record(to, 0, 60)
    assert to.close({"seconds": 60})
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files[:2]] == ["a-000001.kgr", "a-000002.kgr"]
    assert len(files) > 4
    assert max(path.stat().st_size for path in files) < BYTES + 1000, [path.stat().st_size for path in files]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert read(*files) == made
    for number, path in enumerate(files):
        with RecordingReader(path) as reader:
            steps = list(reader.steps())
            last = steps[-1].now_ns // SECOND
            names, pods, answers, _ = known(steps)
            assert (names, pods, answers) == everything(last + 1)
            assert steps[0].is_state == (number > 0)
            assert reader.end == ({"seconds": 60} if path == files[-1] else {"continues": True})


def test_a_part_of_rotated_files_does_not_read_those_before(tmp_path: Path) -> None:
    to = RecordingWriter(tmp_path / "a.kgr", META, print, Rotation(bytes=BYTES))
    record(to, 0, 60)
    to.close({})
    steps = read(*sorted(tmp_path.iterdir()), since_ns=55 * SECOND, until_ns=57 * SECOND)
    assert steps[0].is_state
    assert len(steps) < 30
    assert known(steps)[:3] == everything(58)
    assert known(steps)[3] == 3


def test_a_disk_that_is_full_when_a_file_begins_leaves_no_file_without_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(file: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{file}").endswith("a-000003.kgr") and len(data) > 16:
            raise OSError(28, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(places.os, "write", full)
    said = list[str]()
    to = RecordingWriter(tmp_path / "a.kgr", META, said.append, Rotation(bytes=BYTES))
    made = record(to, 0, 60)
    assert not to.close({})
    assert "No space left on device" in said[0]
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["a-000001.kgr", "a-000002.kgr"]
    found = read(*files)
    assert found == made[: len(found)]


def test_only_the_last_files_are_kept(tmp_path: Path) -> None:
    to = RecordingWriter(tmp_path / "a.kgr", META, print, Rotation(bytes=BYTES, keep=2))
    made = record(to, 0, 60)
    assert to.close({})
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    steps = read(*files)
    assert steps[1:] == made[-len(steps) + 1 :]
    assert known(steps)[:3] == everything(60)


def test_without_the_right_to_remove_files_all_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(place: places.PathOrUrl) -> None:
        raise GadgetError(f"{place}: 403 Forbidden (AccessDenied)")

    monkeypatch.setattr(writer, "remove", forbidden)
    failed, warned = list[str](), list[str]()
    to = RecordingWriter(tmp_path / "a.kgr", META, failed.append, Rotation(bytes=BYTES, keep=2), warn=warned.append)
    made = record(to, 0, 60)
    assert to.close({})
    assert not failed
    files = sorted(tmp_path.iterdir())
    assert len(files) > 4
    assert read(*files) == made
    (warning,) = warned
    assert "a-000001.kgr cannot be removed" in warning
    assert "403 Forbidden (AccessDenied). The recording continues" in warning


def test_files_change_with_time(tmp_path: Path) -> None:
    to = RecordingWriter(tmp_path / "a.kgr", META, print, Rotation(seconds=1e-9))
    made = record(to, 0, 5)
    assert to.close({})
    assert len(list(tmp_path.iterdir())) == 6, "the end has one, too"
    assert read(*sorted(tmp_path.iterdir())) == made


def test_a_file_that_is_missing_between_others_is_counted(tmp_path: Path) -> None:
    to = RecordingWriter(tmp_path / "a.kgr", META, print, Rotation(seconds=1e-9))
    record(to, 0, 5)
    to.close({})
    files = sorted(tmp_path.iterdir())
    with RecordingReader(files[0], files[1], files[4]) as reader:
        assert known(list(reader.steps()))[:3] == everything(5)
        assert reader.damage.missing == 2


@pytest.mark.parametrize("how", [{"rotation": Rotation(bytes=BYTES)}, {"ring": Ring(1, 1 << 20, 0, 1)}])
def test_files_of_an_earlier_run_are_refused_at_the_start(tmp_path: Path, how: dict[str, Any]) -> None:
    (tmp_path / "a-000007.kgr").touch()
    with pytest.raises(UsageError, match=r"a-000007\.kgr: the file exists"):
        RecordingWriter(tmp_path / "a.kgr", META, print, **how)
    assert len(list(tmp_path.iterdir())) == 1


def ring(
    path: Path, seconds: float = 10, size: int = 1 << 20, files: int = 2, after: float = 1000
) -> tuple[RecordingWriter, list[str]]:
    wrote: list[str] = []
    how = Ring(seconds, size, after, files)
    to = RecordingWriter(path, META, print, ring=how, wrote=lambda path, why: wrote.append(f"{path.name}: {why}"))
    return to, wrote


def test_a_ring_writes_nothing_until_it_is_asked(tmp_path: Path) -> None:
    to, wrote = ring(tmp_path / "a.kgr")
    record(to, 0, 30)
    assert to.close({})
    assert wrote == []
    assert list(tmp_path.iterdir()) == []


def test_a_ring_has_the_last_seconds_and_all_that_is_known(tmp_path: Path) -> None:
    to, wrote = ring(tmp_path / "a.kgr")
    made = record(to, 0, 30)
    to.keep("a row matched x")
    assert to.close({})
    assert wrote == ["a-000001.kgr: a row matched x"]
    with RecordingReader(tmp_path / "a-000001.kgr") as reader:
        steps = list(reader.steps())
        assert reader.meta == META
        assert reader.end == {"kept": "a row matched x"}
    assert steps[0].is_state
    assert steps[1:] == made[19:]
    assert known(steps) == (*everything(30), 11)


def test_a_ring_is_as_large_as_its_memory(tmp_path: Path) -> None:
    to, _ = ring(tmp_path / "a.kgr", seconds=1000, size=BYTES)
    record(to, 0, 200)
    to.keep("x")
    to.close({})
    assert (tmp_path / "a-000001.kgr").stat().st_size < 5 * BYTES
    steps = read(tmp_path / "a-000001.kgr")
    assert 1 < len(steps) < 50
    assert known(steps)[:3] == everything(200)


def test_a_ring_holds_no_more_memory_than_it_counts(tmp_path: Path) -> None:
    how = Ring(1000, 1 << 30, 1000, 1)
    to = RecordingWriter(tmp_path / "a.kgr", META | {"filter": "x" * 100_000}, print, ring=how)
    record(to, 0, 40)
    to.close({})
    assert to._ring is not None
    held = sum(len(part) for segment in to._ring._segments for part in segment if isinstance(part, bytes))
    assert held == to._ring._bytes


def test_a_ring_stops_after_its_files(tmp_path: Path) -> None:
    to, wrote = ring(tmp_path / "a.kgr", files=2, after=0)
    number = 0
    for count in (1, 2):
        to.keep("x")
        while len(wrote) < count:
            record(to, number, number + 1)
            number += 1
            time.sleep(0.001)  # the writer works in a thread
    to.keep("x")
    record(to, number, number + 9)
    assert to.close({})
    assert wrote == ["a-000001.kgr: x", "a-000002.kgr: x"]
    assert to.files == len(list(tmp_path.iterdir())) == 2
    first, second = (read(path) for path in sorted(tmp_path.iterdir()))
    assert first[-1].now_ns < second[-1].now_ns, "nothing is written twice"
