"""Describes in words what advice is based on, and why it may be incomplete.

The trap: watching can show what containers do, never what they do not do, so nothing here ever says "complete".
"""

from collections.abc import Container, Iterator

from kubectl_gadget.advise.containers import ContainerOf, start_unseen
from kubectl_gadget.advise.uses import SeenUses
from kubectl_gadget.counts import count, some

_SHORT = 600.0
_LONG = 86_400.0
_MOST_NAMED = 5


def duration(seconds: float) -> str:
    """`90 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def summary(recording: SeenUses) -> str:
    """One line for people, also used at the head of the output."""
    runs = recording.runs
    nodes = {node for run in runs for node in run.nodes}
    times = "" if len(runs) == 1 else f" in {len(runs)} runs"
    since = f", beginning at {min(run.began for run in runs)}" if runs else ""
    return f"watched for {duration(recording.seconds)}{times}{since}, on {count(len(nodes), 'node')}"


def warnings(recording: SeenUses) -> Iterator[str]:
    """Reasons why the advice may be incomplete, the most serious first."""
    lost = sum(run.lost for run in recording.runs)
    if lost:
        yield f"{lost:,} events were lost, so something may be missing (try: --ring-size 16Mi)"
    if doubts := list(dict.fromkeys(text for run in recording.runs for text in run.doubts)):
        yield f"not everything was watched: {some(doubts, _MOST_NAMED)}"
    seconds = recording.seconds
    if seconds < _SHORT:
        yield (
            f"{duration(seconds)} is too short to be complete: what happens at startup, every hour, at night or when "
            "something fails was hardly seen. Watch longer, and through a restart (--record and --from join runs)"
        )
    elif seconds < _LONG:
        yield f"{duration(seconds)} is less than a day: rare behavior may be missing"
    else:
        yield "behavior that did not occur in this time is not included"
    if old := sorted(map(str, start_unseen(recording))):
        yield (
            f"already running when watching began, so what they need to start was not seen: {some(old, _MOST_NAMED)} "
            "(restart them while watching)"
        )


def start_note(item: ContainerOf, unseen: Container[ContainerOf]) -> tuple[str, ...]:
    """A comment for the advice on a container whose start was never seen; empty otherwise."""
    if item not in unseen:
        return ()
    return ("  Its start was not seen, so it may fail to start with this: restart it while watching.",)
