"""How a CI run ended, as its recording keeps it for `ci judge`."""

from kubectl_gadget.wire.message import Message

JOB = "job"
"""The member of END that holds it"""


class JobEnd(Message):
    """What only the run itself knows."""

    where: str = ""
    """whose processes were traced, in words"""
    began_ns: int = 0
    """wall time at which everything was attached"""
    elapsed_ns: int = 0
    """until COMMAND had ended"""
    incomplete: tuple[str, ...] = ()
    """why events are missing that agents did not count as lost"""
    has_unnamed: bool = False
    """rows of containers without a name are rows like the others"""
