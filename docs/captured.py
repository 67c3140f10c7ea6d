"""`sudo python -m docs.captured [NAME...]`: runs gadgets on the demo's pods, for the outputs in the pages of gadgets.

Each docs/gadgets/outputs/NAME.txt has the command and the beginning of what it printed. A gadget whose rows the demo's
pods do not cause has no file; docs/reference.py then shows the command alone.
"""

import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from kubectl_gadget.cli.pages import index
from kubectl_gadget.gadgets import load_gadget

OUTPUTS = Path(__file__).parent / "gadgets" / "outputs"
_CLIENT = (sys.executable, "-m", "kubectl_gadget.cli.main", "demo")
_SECONDS = 90
_MOST_LINES = 8
_LONGEST = 160


def main(names: list[str]) -> None:
    for name in names or [entry.name for entry in index()]:
        gadget = load_gadget(name)
        flags = ["--max-events", "5"] if gadget.kind == "stream" else []
        words = [*gadget.command, *flags, "--timeout", "4s"]
        run = subprocess.run([*_CLIENT, *words], capture_output=True, text=True, timeout=_SECONDS, check=False)
        lines = list(_narrow(run.stdout.splitlines()))
        path = OUTPUTS / f"{name}.txt"
        path.unlink(missing_ok=True)
        if len(lines) > 1:
            shown = [_cut(line.rstrip()) for line in lines[:_MOST_LINES]] + (["…"] if len(lines) > _MOST_LINES else [])
            path.write_text(
                "\n".join([f"$ sudo kubectl gadget demo {' '.join([*gadget.command, *flags])}", *shown, ""])
            )


def _narrow(lines: list[str]) -> Iterator[str]:
    """The lines of each table without the spaces that all of them have beyond two between columns."""
    for is_table, group in groupby(lines, key=bool):
        table = list(group)
        width = max(map(len, table))
        blank = [all(line[place : place + 1] in ("", " ") for line in table) for place in range(width)]
        kept = [place for place in range(width) if place < 2 or not all(blank[place - 2 : place + 1])]
        yield from ("".join(line[place : place + 1] for place in kept) for line in table) if is_table else table


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1].rstrip()}…"


if __name__ == "__main__":
    main(sys.argv[1:])
