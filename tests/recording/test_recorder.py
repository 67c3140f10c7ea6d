"""Bad ends of containers, from the status of pods."""

from typing import Any

from kubectl_gadget.kube.informer import kept
from kubectl_gadget.recording.recorder import BadEnds


def pod(name: str = "web", **states: Any) -> dict[str, Any]:
    """As the informer passes it on."""
    status = {"name": "main", "restartCount": 1, "containerID": "x", **states}
    found = {"metadata": {"namespace": "shop", "name": name, "uid": name}, "status": {"containerStatuses": [status]}}
    return kept("Pod", found)


def ended(code: int, at: str = "1", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at, "message": "long"}}


def test_only_new_ends_with_an_error_count_and_each_once() -> None:
    said: list[str] = []
    ends = BadEnds(lambda _: True, said.append)
    ends.take([pod(lastState=ended(1, "1"))], [])
    assert said == [], "it was there before"
    ends.take([pod(lastState=ended(1, "1")), pod("job", state=ended(0))], [])
    assert said == []
    ends.take([pod(state=ended(137, "2", "OOMKilled"), lastState=ended(1, "1"))], [])
    assert said == ["shop/web/main ended with exit code 137 (OOMKilled)"]
    ends.take([pod(state={"running": {}}, lastState=ended(137, "2", "OOMKilled"))], [])
    assert len(said) == 1, "the same end, as the last one"
    ends.take([], ["web"])
    ends.take([pod(state=ended(2, "3"))], [])
    assert said[1:] == ["shop/web/main ended with exit code 2 (Error)"]


def test_pods_that_the_run_does_not_trace_do_not_count() -> None:
    said: list[str] = []
    ends = BadEnds(lambda found: found["metadata"]["name"] == "web", said.append)
    ends.take([], [])
    ends.take([pod("other", state=ended(1)), pod(state=ended(1))], [])
    assert said == ["shop/web/main ended with exit code 1 (Error)"]


def test_containers_that_prepare_a_pod_count_as_well() -> None:
    said: list[str] = []
    ends = BadEnds(lambda _: True, said.append)
    ends.take([], [])
    status = {"initContainerStatuses": [{"name": "migrate", "state": ended(3)}]}
    ends.take([kept("Pod", {"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "status": status})], [])
    assert said == ["shop/web/migrate ended with exit code 3 (Error)"]
