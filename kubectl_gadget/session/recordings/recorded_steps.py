"""The steps of a CI job in recordings: which rows belong to one of them.

The trap: rows of a step may come after the mark of the next one, so they are chosen by their times, as a run that
judges them does it.
"""

from collections.abc import Iterator, Sequence

from kubectl_gadget.errors import FrameError, UsageError
from kubectl_gadget.policy_events.body import rfc3339
from kubectl_gadget.recording.layout import STEP_MARK
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.session.nodes.backlog import StepMark
from kubectl_gadget.session.recordings.contents import from_frame
from kubectl_gadget.similar_names import did_you_mean
from kubectl_gadget.wire.frames import Frame


def step_filter(readers: Sequence[RecordingReader], name: str) -> str:
    """A filter (CEL) for the rows of all steps with this name. Raises UsageError if there is none."""
    spans, known = list[str](), dict[str, None]()
    for reader in readers:
        marks = sorted(dict.fromkeys(_marks(reader)), key=lambda mark: mark.wall_ns)
        known |= dict.fromkeys(mark.name for mark in marks)
        for mark, following in zip(marks, [*marks, None][1:], strict=True):
            if mark.name == name:
                ends = f' && timestamp < "{rfc3339(following.wall_ns)}"' if following else ""
                spans.append(f'timestamp >= "{rfc3339(mark.wall_ns)}"{ends}')
    if not spans:
        names = f"its steps: {', '.join(known)}" if known else "kubectl gadget ci step, while a run is recorded"
        raise UsageError(f"--step: there is no step {name!r}{did_you_mean(name, list(known))}", names)
    return " || ".join(f"({span})" for span in spans)


def _marks(reader: RecordingReader) -> Iterator[StepMark]:
    for step in reader.steps():
        for frame in step.frames:
            if frame.type == STEP_MARK:
                try:
                    mark = from_frame(Frame(frame.type, frame.payload))
                except FrameError:
                    continue  # the replay itself reports it
                if isinstance(mark, StepMark):
                    yield mark
