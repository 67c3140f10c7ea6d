"""What a reader gets that could not read, or need not read, the segments before: all names, and no old events."""

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.recording import layout, writer
from kubectl_gadget.recording import segments as state_module
from kubectl_gadget.recording.layout import HAS_STATE, SEGMENT_BYTES
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import RecordedIntake, RecordingReader
from kubectl_gadget.recording.segments import RecordedFrame, RunState, merge_objects
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.wire.frames import FrameType
from tests.recording.files import META, SECOND

pytestmark = pytest.mark.usefixtures("small_segments")


@pytest.fixture(name="small_segments")
def one_step_per_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1)
    monkeypatch.setattr(writer, "STATE_SHARE", 0)


def containers(number: int) -> RecordedFrame:
    """A container of its own."""
    changes = {"containers": [{"id": f"c{number}", "pod": f"p{number}"}], "cgroups": {str(number): f"c{number}"}}
    return RecordedFrame("n1", FrameType.CONTAINERS, json.dumps(changes).encode())


def pod(number: int) -> dict[str, Any]:
    return {"metadata": {"uid": f"u{number}", "name": f"p{number}"}}


def record(path: PathOrUrl, count: int = 20) -> None:
    """In each of so many segments: a new container, a new pod, an answer, an event."""
    recording = RecordingWriter(path, META, print)
    hello = RecordedFrame("n1", FrameType.HELLO, b'{"agent":"1"}')
    for number in range(count):
        frames = [*([hello] if not number else []), containers(number)]
        frames.append(RecordedFrame("n1", FrameType.EVENTS, f"{number:024}".encode()))
        changes = {"kinds": {"pods": {"put": [pod(number)], "gone": [f"u{number - 5}"]}}}
        recording.step(number, number * SECOND, frames, {f"a{number}": True}, [changes])
    assert recording.close({})


def spoil(path: Path, *numbers: int) -> None:
    """Flips a bit in the control blocks of these segments."""
    data = bytearray(path.read_bytes())
    with RecordingReader(path) as reader:
        for place in reader.segment_places(reader.damage):
            if place.header.number in numbers:
                data[place.offset + 2] ^= 4
    path.write_bytes(data)


def known(steps: list[RecordedIntake]) -> tuple[set[str], set[str], set[str], int]:
    """Names of containers, uids of pods, answers, and the number of events in these steps."""
    names, answers, objects, events = set[str](), set[str](), dict[str, dict[str, Any]](), 0
    for step in steps:
        answers |= step.answers.keys()
        for changes in step.objects:
            merge_objects(objects, layout.json_of(changes))
        for frame in step.frames:
            if frame.type == FrameType.CONTAINERS:
                names |= {item["id"] for item in json.loads(frame.payload)["containers"]}
            events += frame.type == FrameType.EVENTS
    return names, set(objects.get("pods", {})), answers, events


def everything(count: int = 20) -> tuple[set[str], set[str], set[str]]:
    present = {f"u{number}" for number in range(max(0, count - 5), count)}
    return {f"c{number}" for number in range(count)}, present, {f"a{number}" for number in range(count)}


@pytest.mark.parametrize("lost", [(0,), (1,), (7,), (8,), (5, 11), (0, 1), (3, 4, 5, 6), (7, 8, 9)])
def test_damaged_segments_lose_their_own_events_alone(tmp_path: Path, lost: tuple[int, ...]) -> None:
    path = tmp_path / "a.kgr"
    record(path)
    spoil(path, *lost)
    with RecordingReader(path) as reader:
        names, pods, answers, events = known(list(reader.steps()))
        assert reader.damage.segments == len(lost)
    assert (names, pods, answers) == everything()
    assert events == 20 - len(lost)


def test_a_whole_recording_has_no_repetitions(tmp_path: Path) -> None:
    record(tmp_path / "a.kgr")
    with RecordingReader(tmp_path / "a.kgr") as reader:
        steps = list(reader.steps())
    assert len(steps) == 20
    assert not any(step.is_state for step in steps)


def test_a_part_begins_with_the_last_state_before_it(tmp_path: Path) -> None:
    record(tmp_path / "a.kgr")
    with RecordingReader(tmp_path / "a.kgr") as reader:
        assert [header.number for header in reader.segments() if header.flags & HAS_STATE] == [8, 16]
        steps = list(reader.steps(18 * SECOND))
    assert [step.wall_ns // SECOND for step in steps] == [15, 16, 17, 18, 19]
    assert [step.is_state for step in steps] == [True, False, False, False, False]
    names, pods, answers, events = known(steps)
    assert (names, pods, answers, events) == (*everything(), 2)


def test_a_state_is_left_out_where_it_is_large_beside_the_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "STATE_SHARE", 10)
    record(tmp_path / "a.kgr", 200)
    with RecordingReader(tmp_path / "a.kgr") as reader:
        assert 1 < sum(header.flags & HAS_STATE for header in reader.segments()) < 20


def test_removed_cgroups_and_ended_sessions_leave_the_state() -> None:
    state = RunState()

    def apply(now_ns: int, type: int, value: dict[str, Any]) -> None:
        control = layout.record(layout.RecordKind.NODE, b"n1", node=0) + layout.step_record(now_ns, now_ns)
        frame = layout.record(layout.RecordKind.FRAME, json.dumps(value).encode(), node=0, type=type)
        state.apply(control + frame)

    assert state.encode() == b""
    apply(0, FrameType.HELLO, {"agent": "1"})
    apply(0, FrameType.STACKS, {"gadget": 0, "first": 0, "frames": ["main"], "stacks": {}})
    apply(0, FrameType.CONTAINERS, {"containers": [{"id": "c"}, {"id": "d"}], "cgroups": {"1": "c", "2": "d"}})
    apply(1, FrameType.CONTAINERS, {"removed": [1]})
    assert b'"c"' in state.encode(), "its last events may still come"
    assert b"main" in state.encode()
    apply(400 * SECOND, layout.DETACHED, {})
    encoded = state.encode()
    assert b'"c"' not in encoded
    assert b'"d"' in encoded
    assert b'"agent"' not in encoded
    apply(400 * SECOND, FrameType.HELLO, {"agent": "2"})
    assert b"main" not in state.encode(), "numbers of stacks are those of one session"


def test_containers_of_days_ago_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "MOST_UNUSED", 10)
    state = RunState()
    for number in range(200):
        changes = json.dumps({"removed": [number - 1]} | json.loads(containers(number).payload)).encode()
        control = layout.record(layout.RecordKind.NODE, b"n1", node=0) + layout.step_record(number * 400 * SECOND, 0)
        state.apply(control + layout.record(layout.RecordKind.FRAME, changes, node=0, type=FrameType.CONTAINERS))
    assert len(state._nodes["n1"]._containers) < 20
    assert b'"c199"' in state.encode()


def test_sizes_of_headers_are_those_of_the_documentation() -> None:
    assert (layout.FILE_BYTES, SEGMENT_BYTES) == (16, 60)


def test_a_reader_that_starts_late_knows_the_step_of_the_job(tmp_path: Path) -> None:
    recording = RecordingWriter(tmp_path / "r", META, print)
    for number in range(20):
        marks = [RecordedFrame("", layout.STEP_MARK, f'{{"name":"{number}"}}'.encode())] if number < 3 else []
        recording.step(number, number * SECOND, [*marks, containers(number)])
    assert recording.close({})

    with RecordingReader(tmp_path / "r") as reader:
        first = next(step for step in reader.steps(17 * SECOND) if step.is_state)

    assert [frame.payload for frame in first.frames if frame.type == layout.STEP_MARK] == [b'{"name":"2"}']
    assert {frame.node for frame in first.frames if frame.type != layout.STEP_MARK} == {"n1"}
