"""bench.recorders measures: few events of each load, without their times."""

import pytest

from bench.recorders import OPENS, PACKETS, Recorder, measured

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]


@pytest.mark.parametrize(("loop", "recorder"), [("open_loop", OPENS[0]), ("udp_loop", PACKETS[0])])
def test_all_events_of_a_loop_are_in_the_recording(loop: str, recorder: Recorder) -> None:
    found = measured(loop, [recorder], 300, 1)
    (result,) = found[recorder.name]
    assert result.kept >= 1.0  # the loader of the program opens files, too
    assert result.bytes > 0
    assert result.recorder_ns > 0
