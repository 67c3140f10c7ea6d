"""`sudo python -m docs.captured [NAME...]`: runs gadgets on the demo's pods, for the outputs in the pages of gadgets.

Each docs/gadgets/outputs/NAME.txt has the command and the beginning of what it printed. A gadget whose rows the demo's
pods do not cause has no file; docs/reference.py then shows the command alone. NAME `diagnose`: all that
`demo diagnose` says, in README.md.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import dropwhile, groupby
from pathlib import Path

from kubectl_gadget.cli.pages import index
from kubectl_gadget.gadgets import load_gadget

README = Path(__file__).parent.parent / "README.md"
DIAGNOSIS = "sudo kubectl gadget demo diagnose"
OUTPUTS = Path(__file__).parent / "gadgets" / "outputs"
_CLIENT = (sys.executable, "-m", "kubectl_gadget.cli.main", "demo")
_SECONDS = 90
_MOST_LINES = 8
_LONGEST = 160


def main(names: list[str]) -> None:
    for name in names or ["diagnose", *(entry.name for entry in index())]:
        if name == "diagnose":
            capture_diagnosis()
            continue
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


def capture_diagnosis() -> None:
    """Put the output of `demo diagnose` below its command in README.md."""
    both = subprocess.STDOUT
    run = subprocess.run(
        [*_CLIENT, "diagnose"], stdout=subprocess.PIPE, stderr=both, text=True, timeout=_SECONDS, check=True
    )
    said = run.stdout.partition("the pods are removed")[0].splitlines()
    README.write_text(with_output(README.read_text(), DIAGNOSIS, said))


def with_output(page: str, command: str, lines: Iterable[str]) -> str:
    """Return a page with these lines as the output of a command in one of its blocks, which is indented."""
    before, _, after = page.partition(f"    $ {command}\n")
    rest = dropwhile(lambda line: not line or line.startswith("    "), after.split("\n"))
    shown = [f"    {line}".rstrip() for line in (f"$ {command}", *lines)]
    return before + "\n".join([*shown, "", *rest])


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
