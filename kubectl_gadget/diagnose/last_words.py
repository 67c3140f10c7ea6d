"""The last words of containers that ended: what their interpreter, runtime or C library wrote before the end.

A program may write what it likes, so of a log only lines in the words of those are kept, and rules take them for likely
at best. They say what no system call shows, such as a missing variable, and what ended before the run began.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from kubectl_gadget.kube.resources import Object
from kubectl_gadget.yaml_files import own_data

LINES, BYTES = 20, 16384
"""The end of a log that is read."""
_PATTERNS = Path(__file__).parent / "last_words.yaml"
_LONGEST, _LONGEST_LINE = 200, 300
"""Characters of a name, and of a line: patterns take longer than a line's length."""
_NONE: Object = {}


@lru_cache(1)
def patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return what each pattern says, and the pattern."""
    found = own_data(_PATTERNS)["last_words"]
    return tuple((each["says"], re.compile(each["pattern"], re.MULTILINE)) for each in found)


def last_words(log: str) -> Object | None:
    """Return `says`, `name`, `error` and `what` of the last lines of a log; None if it says nothing that is known."""
    log = "\n".join(line[:_LONGEST_LINE] for line in log.splitlines())
    latest, best = -1, None
    for says, pattern in patterns():
        for found in pattern.finditer(log):
            if found.end() > latest:
                latest, best = found.end(), (says, found.groupdict())
    if best is None:
        return None
    says, groups = best
    name, error = ((groups.get(each) or "").strip()[:_LONGEST] for each in ("name", "error"))
    return {"says": says, "name": name, "error": error, "what": ": ".join(filter(None, (name, error)))}


def ended(pod: Object) -> Iterator[tuple[str, str, bool, Object]]:
    """Yield each container of a pod whose last run ended with an error: its name, the ID of that run, whether another
    run has begun since, and the end."""
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind) or ():
            now = (each.get("state") or {}).get("terminated")
            last = now or (each.get("lastState") or {}).get("terminated") or _NONE
            if last.get("containerID") and last.get("exitCode"):
                runs = "running" in (each.get("state") or ())
                yield each["name"], str(last["containerID"]), runs, last
