"""Runs the gadgets of a command that prints their rows: on nodes, or from recordings."""

import gc
import sys
from typing import TextIO

from kubectl_gadget.output.terminal import require_writable
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import ask_early
from kubectl_gadget.run.run_options import RunOptions

# Megabytes of frames and columns are allocated and freed in two threads, each with a heap of its own in glibc, whose
# holes are too small for the next ones. A client that could not keep up grew by 1.3 MiB/s and stood at 540 MiB after
# 200 s; with these settings it stood at 360 MiB. A thread gets a heap of its own at its first allocation,
# so memory is set up before threads start.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From <malloc.h>; other C libraries do not have mallopt()."""


def give_back_what_is_freed() -> None:
    """Gives large blocks mappings of their own, and all threads one heap. Does nothing where unsupported."""
    import ctypes  # takes 4 ms, for which an agent of this machine does not wait

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 16 << 20)


def run(options: RunOptions, stdout: TextIO, stderr: TextIO) -> int:
    """Runs gadgets until they are stopped, and returns the exit code.

    All of the user's input is checked before any agent is asked for anything. Raises GadgetError.
    """
    if options.replay is not None:
        give_back_what_is_freed()
        from kubectl_gadget.recording.replay_run import replay

        return replay(options, stdout, stderr)
    require_writable(stdout)
    ask_early(options)  # so a local agent loads programs while this process imports the rest, which takes 0.1 s
    give_back_what_is_freed()
    work = _run(options, stdout, Progress(stderr, options.quiet, options.verbose))
    if options.local:
        import asyncio

        return asyncio.run(work)
    from kubectl_gadget.kube import read_turns

    return read_turns.run(work)


async def _run(options: RunOptions, stdout: TextIO, progress: Progress) -> int:
    from kubectl_gadget.run import live_run

    gc.freeze()  # looking for garbage in what was imported would take 10 ms, before the nodes are attached
    async with live_run.begin(options, progress, stdout) as run:
        return await run.main(sys.stdin)
