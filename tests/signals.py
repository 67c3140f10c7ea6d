"""Signals as tests expect them, whatever started the tests.

A shell script ignores SIGINT and SIGQUIT for what it starts with `&`, and nohup ignores SIGHUP. The programs that tests
start would inherit this, and a test that sends them a signal would wait in vain.
"""

import signal

_MAY_BE_IGNORED = ("SIGINT", "SIGQUIT", "SIGHUP")


def set_defaults_for_children() -> None:
    """Gives the programs that this process starts the default action for signals that it was started to ignore. The
    process itself goes on ignoring them: what does nothing here becomes the default in the next program."""
    for name in _MAY_BE_IGNORED:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
