"""Progress on standard error while a run is prepared and running. Standard output is for events only.

Note: messages may contain text that came from a node, so control characters are escaped here too.
"""

from collections import Counter
from typing import TextIO

from kubectl_gadget.output.escape import escape

_MOST_NOTES = 100
"""of one node"""


class Progress:
    """Writes messages for the user, unless `quiet`; details only when `verbose`."""

    def __init__(self, stream: TextIO, quiet: bool = False, verbose: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._verbose = verbose
        self._noted: set[str] = set()
        self._notes: Counter[str] = Counter()
        """by node"""

    def say(self, message: str) -> None:
        """Writes one line, except when quiet."""
        if not self._quiet:
            self.warn(message)

    def node(self, node: str, message: str) -> None:
        """Writes one line about a node. Further lines of the message, which the node may have chosen, are indented, so
        that they do not look like messages of this program."""
        first, *others = message.splitlines() or [""]
        self.say("\n    ".join([f"{escape(node)}: {first}", *map(str.strip, others)]))

    def note(self, node: str, message: str) -> None:
        """Writes one line that similar nodes all report; only the first report is written."""
        if message in self._noted:
            return
        self._notes[node] += 1
        if self._notes[node] > _MOST_NOTES:
            message = f"it reports more than {_MOST_NOTES} messages; the rest are left out"
        if message not in self._noted or self._notes[node] == _MOST_NOTES + 1:
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
            self._stream.write(escape(line) + "\n")
        self._stream.flush()
