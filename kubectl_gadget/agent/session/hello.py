"""HELLO: what this agent is, and what its node supports."""

import os
import time

from kubectl_gadget import __version__
from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.installed import feed, owners
from kubectl_gadget.agent.kernel import features
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.agent.session.start_sources import KINDS
from kubectl_gadget.wire.agent_messages import Hello, RunningSession
from kubectl_gadget.wire.session_command import SESSION, SessionCommand


def hello() -> Hello:
    """Returns the content of the HELLO frame."""
    system = os.uname()
    return Hello(
        protocol=1,
        agent=__version__,
        node=this_node.name(),
        addresses=tuple(this_node.addresses()),
        architecture=system.machine,
        kernel=system.release,
        kinds=KINDS,
        boot_id=this_node.boot_id(),
        policies=feed.state(),
        pins=() if this_node.is_contained() else owners.of_others(),
        contained=this_node.is_contained(),
        sessions=_other_sessions(),
        **features.describe() | this_node.clocks(),
    )


def _other_sessions() -> tuple[RunningSession, ...]:
    """Returns the sessions that run in this pod, oldest first, without those that declare no gadget."""
    try:
        fd = os.open(presence.PATH, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ()  # this is no pod of ours
    try:
        found = [_session(pid) for pid in presence.holders(fd) if pid != os.getpid()]
    except OSError:
        return ()  # the list of locks cannot be read
    finally:
        os.close(fd)
    return tuple(sorted((one for one in found if one is not None), key=lambda one: -one.seconds))


def _session(pid: int) -> RunningSession | None:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            words = file.read().split("\0")[:-1]
        with open(f"/proc/{pid}/stat") as file:
            started = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        command = SessionCommand.parse(words[words.index(SESSION) :])
    except (OSError, ValueError):
        return None  # it has ended, or is no session
    if command is None or command.gadgets == ():
        return None
    seconds = int(time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    if this_node.is_contained():
        return RunningSession(seconds=seconds)
    return RunningSession(gadgets=command.gadgets or (), enforces=command.enforces, seconds=seconds)
