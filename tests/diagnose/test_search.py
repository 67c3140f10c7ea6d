"""When pods start again that crash."""

from typing import Any

import pytest

from kubectl_gadget.diagnose.search import next_start
from kubectl_gadget.kube.addresses import wall_ns

ENDED = "2026-09-21T14:13:00Z"


def crashing(message: str = "", restarts: int = 1) -> dict[str, Any]:
    return {
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": message}},
        "lastState": {"terminated": {"finishedAt": ENDED}},
        "restartCount": restarts,
    }


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        (crashing("back-off 40s restarting failed container=app"), 40),
        (crashing("back-off 1m20s restarting failed container=app"), 80),
        (crashing("back-off 5m0s restarting failed container=app"), 300),
        (crashing(restarts=3), 40),
        (crashing(restarts=900), 300),
        (crashing("back-off 99999999m restarting"), 300),
    ],
)
def test_the_next_start_is_the_last_end_and_the_kubelets_back_off(status: dict[str, Any], seconds: int) -> None:
    assert next_start([{"state": {"running": {}}}, status]) == pytest.approx(wall_ns(ENDED) / 1e9 + seconds)


def test_a_pod_that_runs_or_ended_once_is_not_waited_for() -> None:
    assert next_start([{"state": {"running": {}}, "restartCount": 3}, {"state": {}}, {}]) is None
    waiting = {**crashing(), "lastState": {}}
    assert next_start([waiting]) is None
