"""The steps of a CI job in a recording."""

from pathlib import Path

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.recording.layout import STEP_MARK
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_frames import from_frame, to_frame
from kubectl_gadget.recording.replay_run import step_filter
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.backlog import StepMark
from kubectl_gadget.wire.frames import Frame
from tests.recording.files import META, SECOND


def recorded(path: Path, *marks: StepMark) -> RecordingReader:
    writer = RecordingWriter(path, META, print)
    for number, mark in enumerate(marks):
        writer.step(number, number * SECOND, [RecordedFrame("", *to_frame(mark))])
    writer.step(9, 9 * SECOND, [RecordedFrame("", STEP_MARK, b'{"name":"x","wall_ns":-1}')])
    assert writer.close({})
    return RecordingReader(path)


def test_a_step_ends_where_the_next_one_begins_and_may_come_twice(tmp_path: Path) -> None:
    names = ("build", "test", "build")
    marks = [StepMark(name, number * SECOND) for number, name in enumerate(names)]
    with recorded(tmp_path / "r", *marks) as reader:
        assert step_filter([reader], "test") == (
            '(timestamp >= "1970-01-01T00:00:01.000000000Z" && timestamp < "1970-01-01T00:00:02.000000000Z")'
        )
        assert step_filter([reader], "build").count("timestamp >=") == 2
        with pytest.raises(UsageError, match=r"no step 'tset'.*test"):
            step_filter([reader], "tset")


def test_a_recording_without_steps_says_how_to_get_them(tmp_path: Path) -> None:
    with recorded(tmp_path / "r") as reader, pytest.raises(UsageError, match="no step 'test'") as caught:
        step_filter([reader], "test")
    assert caught.value.remedy == "kubectl gadget ci step, while a run is recorded"


@pytest.mark.parametrize("time", ["-1", "true", '"x"', "1e3", str(1 << 63), "null"])
def test_a_mark_without_a_time_cannot_be_read(time: str) -> None:
    with pytest.raises(Exception, match="type -5"):
        from_frame(Frame(STEP_MARK, f'{{"name":"x","wall_ns":{time}}}'.encode()))
