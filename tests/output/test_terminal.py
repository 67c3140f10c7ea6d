"""Terminals and colors."""

import io
import os
from collections.abc import Iterator

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.terminal import Terminal, find_terminal, pod_color, wants_color


@pytest.fixture
def tty() -> Iterator[io.TextIOWrapper]:
    """A real pseudo-terminal of 93 columns."""
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 93, 0, 0))
    with io.TextIOWrapper(io.FileIO(slave, "w")) as file:
        yield file
    os.close(master)


def test_a_pipe_is_not_a_terminal() -> None:
    assert find_terminal(io.StringIO(), {}) is None


def test_a_terminal_has_its_width(tty: io.TextIOWrapper) -> None:
    terminal = find_terminal(tty, {})
    assert terminal is not None
    assert terminal.width() == 93


@pytest.mark.parametrize(
    ("environ", "color"),
    [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_follow_the_environment(tty: io.TextIOWrapper, environ: dict[str, str], color: bool) -> None:
    terminal = find_terminal(tty, environ)
    assert wants_color("auto", terminal) is color
    assert wants_color("always", terminal)
    assert not wants_color("never", terminal)


def test_a_pipe_gets_colours_only_on_request() -> None:
    assert not wants_color("auto", None)
    assert wants_color("always", None)


def test_a_choice_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UsageError, match="--color 'sometimes'"):
        wants_color("sometimes", Terminal(lambda: 80))


def test_a_pods_colour_is_always_the_same() -> None:
    assert pod_color("default/xwing") == pod_color("default/xwing") != ""
    assert pod_color("") == ""
