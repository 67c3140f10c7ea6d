"""Containers that ended badly, from what the API server says of pods: for a recording that is kept when one does.

The trap: the first list has the bad ends of days ago, so only ends that are new while the run watches count.
"""

from collections.abc import Callable, Iterator

from kubectl_gadget.kube.resources import Object


class BadEnds:
    """Calls `ended` with a reason for each new bad end in a pod that `is_wanted` (its object)."""

    def __init__(self, is_wanted: Callable[[Object], bool], ended: Callable[[str], object]) -> None:
        self._is_wanted = is_wanted
        self._ended = ended
        self._known: dict[str, set[str]] = {}
        """ends by the pod's uid, in the form of _ends"""
        self._listed = False

    def take(self, pods: list[Object], gone: list[str]) -> None:
        """Takes pods that are new or have changed, and the uids of pods that are gone."""
        for pod in pods:
            uid = pod["metadata"]["uid"]
            ends = dict(_ends(pod))
            # A pod that is new is one that began after the run; its ends are as new.
            fresh = ends.keys() - self._known.get(uid, set()) if self._listed else set()
            self._known[uid] = set(ends)
            if fresh and self._is_wanted(pod):
                self._ended(ends[min(fresh)])
        for uid in gone:
            self._known.pop(uid, None)
        self._listed = True


def _ends(pod: Object) -> Iterator[tuple[str, str]]:
    """Yields the bad ends in the status of a pod: a key that differs for each end, and what happened."""
    metadata, found = pod["metadata"], pod.get("status") or {}
    for status in (*(found.get("initContainerStatuses") or ()), *(found.get("containerStatuses") or ())):
        for state in (status.get("state"), status.get("lastState")):
            end = (state or {}).get("terminated")
            if end and end.get("exitCode"):
                reason = end.get("reason") or "Error"
                name = f"{metadata['namespace']}/{metadata['name']}/{status['name']}"
                yield (
                    f"{status['name']} {end.get('containerID') or end.get('finishedAt')}",
                    f"{name} ended with exit code {end['exitCode']} ({reason})",
                )
