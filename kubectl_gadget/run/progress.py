"""What a user sees on standard error while a run is prepared and running. Standard output is for events only.

The trap: messages may contain text that came from a node, so control characters are escaped here too.
"""

from typing import TextIO


class Progress:
    """Writes messages for the user, unless `quiet`; details only when `verbose`."""

    def __init__(self, stream: TextIO, quiet: bool = False, verbose: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._verbose = verbose
        self._noted: set[str] = set()

    def say(self, message: str) -> None:
        """Writes one line, except when quiet."""
        if not self._quiet:
            self.warn(message)

    def node(self, node: str, message: str) -> None:
        """Writes one line about a node."""
        self.say(f"{node}: {message}")

    def note(self, node: str, message: str) -> None:
        """Writes one line that similar nodes all report; only the first report is written."""
        if message not in self._noted:
            self._noted.add(message)
            self.node(node, message)

    def detail(self, node: str, message: str) -> None:
        """Writes one line about a node, only when verbose."""
        if self._verbose:
            self.node(node, message)

    def debug(self, message: str) -> None:
        """Writes one line, only when verbose."""
        if self._verbose:
            self.say(message)

    def warn(self, message: str) -> None:
        """Writes one line, even when quiet."""
        for line in message.splitlines() or [""]:
            printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
            self._stream.write(printable + "\n")
        self._stream.flush()
