from kubectl_gadget.run.steps.frame_sources import RunningTime


def test_time_in_which_the_process_stood_still_is_not_counted() -> None:
    moments = iter([0, 100_000_000, 600_000_000, 30_600_000_000, 30_700_000_000])
    now = RunningTime(lambda: next(moments))
    assert [now() for _ in range(4)] == [100_000_000, 600_000_000, 1_100_000_000, 1_200_000_000]
