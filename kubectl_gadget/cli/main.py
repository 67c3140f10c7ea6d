"""The program's entry: runs a command line, and turns its outcome into an exit code and a message on standard error.

0: done. 1: failed. 2: the command line is wrong. 4: --fail-on, --expect or findings. 5: inconclusive. 130, 143: ended
by a signal. The trap: nothing else in this project may print a traceback or call sys.exit.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import threading

INTERRUPTED = 130


def main() -> NoReturn:
    """`kubectl-gadget`: runs the process's command line and exits."""
    # First, since Ctrl-C may come at any time: little is imported until here.
    sys.excepthook, sys.unraisablehook = _uncaught, _unraisable
    import gc

    gc.set_threshold(100_000)  # until a run begins (live_run.py): imports make 50,000 objects and hardly any garbage
    import atexit
    import os
    import threading

    from kubectl_gadget.output.terminal import prepare_standard_streams
    from kubectl_gadget.python_process import keep_numpy_single
    from kubectl_gadget.run.local_agent import start_early

    keep_numpy_single()
    prepare_standard_streams()
    threading.excepthook = _thread_failed
    start_early(sys.argv[1:])
    code = run(sys.argv[1:], as_stored=True)
    atexit._run_exitfuncs()
    _settle_stdout()  # also after Ctrl-C
    sys.stderr.flush()
    # All is done and written. Taking the interpreter apart takes 20 ms, and Ctrl-C would show a traceback.
    os._exit(code)


def run(words: Sequence[str], as_stored: bool = False) -> int:
    """Runs one command line, without the program's name; returns the exit code. Writes only to sys.stdout and
    sys.stderr. `as_stored`: help is what the build has stored."""
    from kubectl_gadget.errors import GadgetError
    from kubectl_gadget.output.terminal import ReaderGoneError, discard

    try:
        code = _dispatch(list(words), as_stored)
        sys.stdout.flush()
        return code
    except GadgetError as error:
        say_error(str(error), error.remedy)
        _settle_stdout()
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except ReaderGoneError:
        discard(sys.stdout)
        return 0
    except Exception as error:
        return _unexpected(error)


def say_error(message: str, remedy: str | None = None) -> None:
    """Writes an error to standard error; text from a node cannot send escapes to the terminal."""
    from kubectl_gadget.output.escape import escape

    text = f"error: {message}" + (f"\ntry: {remedy}" if remedy else "")
    sys.stderr.write("".join(escape(line) + "\n" for line in text.split("\n")))
    sys.stderr.flush()


def _dispatch(words: list[str], as_stored: bool) -> int:
    from kubectl_gadget.cli.stored import PROGRAM, help_text

    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if words in (["--version"], ["-V"]):
        words = ["version", "--client"]
    if as_stored and (text := help_text(words)) is not None:
        sys.stdout.write(text)
        return 0
    import typer

    from kubectl_gadget.cli.command import open_context
    from kubectl_gadget.cli.root import root

    command = root()
    try:
        context = open_context(command, PROGRAM, words)
        with context:
            return command.execute(context)
    except typer.Exit as end:
        return end.exit_code


def _unexpected(error: BaseException) -> int:
    from kubectl_gadget.errors import internal_error

    shown = internal_error(error)
    say_error(str(shown), shown.remedy)
    return 1


def _uncaught(kind: type[BaseException], error: BaseException, _: object) -> None:
    """Handle what `run` does not catch. After Ctrl-C it says nothing, and Python ends by its signal."""
    if not issubclass(kind, KeyboardInterrupt):
        _unexpected(error)


def _unraisable(caught: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C in a place that cannot fail, such as the import system's own callbacks: it comes again a moment later."""
    if issubclass(caught.exc_type, KeyboardInterrupt):
        import threading

        returns = threading.Event()
        threading.Thread(target=_interrupt_again, args=[returns]).start()
        returns.set()  # not earlier: on a busy machine start() takes long, and a signal in that time would be lost, too
    else:
        sys.__unraisablehook__(caught)


def _interrupt_again(returns: "threading.Event") -> None:
    import signal
    import threading
    import time

    returns.wait()
    time.sleep(0.01)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _thread_failed(caught: "threading.ExceptHookArgs") -> None:
    """The last resort for errors of threads; normally their owners report them."""
    if caught.exc_value is not None:
        _unexpected(caught.exc_value)


def _settle_stdout() -> None:
    """Drops output that can no longer be written."""
    from kubectl_gadget.output.terminal import OutputError, discard

    try:
        sys.stdout.flush()
    except (OSError, OutputError):
        discard(sys.stdout)


if __name__ == "__main__":
    main()
