"""Prints answers of commands that are not runs: tables in kubectl's style, and JSON.

Piped output is never wrapped or cut, so that scripts read whole cells.
"""

import json
import os
import sys
from collections.abc import Sequence


def print_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], with_headers: bool = True) -> None:
    """Prints a table to standard output in kubectl's style: upper-case titles, two spaces, no lines. On a terminal that
    is too narrow, cells are wrapped between words; piped output never is."""
    from tabulate import tabulate

    from kubectl_gadget.output.escape import escape
    from kubectl_gadget.output.terminal import find_terminal

    cells = [[escape(cell) for cell in row] for row in [*([headers] if with_headers else []), *rows]]
    terminal = find_terminal(sys.stdout, os.environ)
    widths = _widths(cells, terminal.width()) if terminal and cells else None
    text = tabulate(cells, tablefmt="plain", disable_numparse=True, maxcolwidths=widths)
    sys.stdout.writelines(line.rstrip() + "\n" for line in text.splitlines())


def print_json(answer: object) -> None:
    """Prints a value as indented JSON to standard output."""
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


def say(text: str) -> None:
    """Prints a line to standard error; text from the cluster cannot send escapes to the terminal."""
    from kubectl_gadget.output.escape import escape

    sys.stderr.writelines(escape(line) + "\n" for line in text.split("\n"))
    sys.stderr.flush()


def _widths(cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths of the columns so that all fit into `room` cells: the widest shrinks first. None: words would have to
    break."""
    from kubectl_gadget.output.tables import text_width

    columns = list(zip(*cells, strict=True))
    widths = [max(map(text_width, column)) for column in columns]
    words = [max((text_width(word) for cell in column for word in cell.split()), default=0) for column in columns]
    while sum(widths) + 2 * len(widths) - 2 > room:
        able = [place for place, width in enumerate(widths) if width > words[place]]
        if not able:
            return None
        widths[max(able, key=widths.__getitem__)] -= 1
    return [max(width, 1) for width in widths]
