"""Runs the gadgets of a command that prints their rows: on nodes, or from recordings."""

import asyncio
import sys
from typing import TextIO

from kubectl_gadget.output.live.keys import Keys, can_read_keys
from kubectl_gadget.output.standard_streams import require_writable
from kubectl_gadget.session import live_run
from kubectl_gadget.session.memory import give_back_what_is_freed
from kubectl_gadget.session.progress import Progress
from kubectl_gadget.session.run_options import RunOptions


def run(options: RunOptions, stdout: TextIO, stderr: TextIO) -> int:
    """Runs gadgets until they are stopped, and returns the exit code.

    All of the user's input is checked before any agent is asked for anything. Raises GadgetError.
    """
    give_back_what_is_freed()
    if options.replay is not None:
        from kubectl_gadget.session.recordings.replay_run import replay

        return replay(options, stdout, stderr)
    require_writable(stdout)
    return asyncio.run(_run(options, stdout, Progress(stderr, options.quiet, options.verbose)))


async def _run(options: RunOptions, stdout: TextIO, progress: Progress) -> int:
    run = await live_run.begin(options, progress, stdout)
    # The sink has imported it already, if it is one.
    from kubectl_gadget.output.live.screen import LiveTable

    descriptor = can_read_keys(sys.stdin)
    pressed = run.key if run.has_keys else None
    if isinstance(run.sink, LiveTable):
        run.sink.quit = run.quit
        pressed = run.sink.key
    if pressed is None or descriptor is None:
        return await run.main()
    with Keys(descriptor, pressed):
        return await run.main()
