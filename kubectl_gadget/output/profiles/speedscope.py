"""Profiles for https://www.speedscope.app, in its JSON format: one profile per container.

The trap: a frame is identified by its index in one list that all profiles share.
"""

import json
from collections.abc import Sequence
from typing import Any, TextIO

from kubectl_gadget import __version__
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.profiles.folded import ProfileSink
from kubectl_gadget.rows.tables.call_paths import PathStep, unit_of

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_UNITS = {"nanoseconds": "nanoseconds", "bytes": "bytes", "count": "none"}


class SpeedscopeSink(ProfileSink):
    """Writes one JSON object."""

    def __init__(self, stream: TextIO, gadgets: Sequence[Gadget]) -> None:
        super().__init__(gadgets, "-o speedscope")
        self._stream = stream

    def close(self) -> None:
        frames: dict[PathStep, int] = {}
        by_container: dict[tuple[PathStep, ...], dict[tuple[PathStep, ...], int]] = {}
        for path, weight in self.paths.items():
            by_container.setdefault(path[:2], {})[path[2:]] = weight
        profiles = []
        for container, paths in sorted(by_container.items()):
            numbered = [[frames.setdefault(call, len(frames)) for call in path] for path in paths]
            profiles.append(self._profile(" ".join(call.title for call in container), numbered, list(paths.values())))
        whole = {
            "$schema": _SCHEMA,
            "name": f"kubectl gadget {' '.join(self.gadget.command)}",
            "exporter": f"kubectl-gadget {__version__}",
            "shared": {"frames": [_frame(call) for call in frames]},
            "profiles": profiles,
        }
        json.dump(whole, self._stream)
        self._stream.write("\n")
        self._stream.flush()

    def _profile(self, name: str, stacks: list[list[int]], weights: list[int]) -> dict[str, Any]:
        return {
            "type": "sampled",
            "name": name,
            "unit": _UNITS[unit_of(self.gadget, self.gadget.totals.weight)],
            "startValue": 0,
            "endValue": sum(weights),
            "samples": stacks,
            "weights": weights,
        }


def _frame(call: PathStep) -> dict[str, str]:
    return {"name": call.title, "file": call.module} if call.module else {"name": call.title}
