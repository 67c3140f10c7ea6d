"""bench.recording_reading measures: a few events of each part, without their times."""

from pathlib import Path

import pytest

from bench.recording import OpensOfRun
from bench.recording_reading import enlarge, make
from kubectl_gadget.recording.reader import RecordingReader

pytestmark = pytest.mark.usefixtures("catalogue_built")


def test_a_large_file_repeats_the_segments_at_later_times(tmp_path: Path) -> None:
    source = OpensOfRun(300_000)
    make(source, tmp_path / "a.kgr")
    begin, end = enlarge(tmp_path / "a.kgr", tmp_path / "b.kgr", 20 << 20)
    with RecordingReader(tmp_path / "b.kgr") as reader:
        steps = list(reader.steps())
        headers = list(reader.segments())
        assert not reader.damage.segments
    assert [header.number for header in headers] == list(range(len(headers)))
    assert len(steps) > 2 * len(source.steps)
    times = [step.wall_ns for step in steps]
    assert times == sorted(times)
    assert begin <= times[0] < times[-1] < end
