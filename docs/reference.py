"""`python -m docs.reference`: writes the reference in docs/ from the gadgets and the command line itself.

    docs/flags.md            the flags that all gadgets share
    docs/columns.md          the columns that most gadgets share, and how to read columns and JSON
    docs/advise-flags.md     the flags of the advisors
    docs/observe-flags.md    the flags and flat columns of observe
    docs/gadgets/README.md   the gadgets
    docs/gadgets/NAME.md     one gadget: output (docs/captured.py), examples, own flags and columns, limits
    docs/design/packages.md  the packages of the code, by floor
    docs/diagnose/           the rules of diagnose (docs/rules.py)

With --check nothing is written, and stale pages are an error; a test and CI use it.
"""

import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from docs import rules
from docs.captured import OUTPUTS
from docs.packages import floors
from kubectl_gadget.cli import observe
from kubectl_gadget.cli.command import GadgetGroup, make_command
from kubectl_gadget.cli.flags import ENGINE, SHOW
from kubectl_gadget.cli.gadget_flags import TABLE
from kubectl_gadget.cli.gadgets import TARGETS, gadget_command, options_command
from kubectl_gadget.cli.help import FlagText
from kubectl_gadget.cli.pages import Page, index
from kubectl_gadget.cli.policy_flags import POLICIES
from kubectl_gadget.cli.root import root
from kubectl_gadget.gadgets.schema import Column, Field, Gadget, field_of
from kubectl_gadget.rows.members import column_members, row_members

DOCS = Path(__file__).parent
_NOTE = "<!-- Written by python -m docs.reference, which a test compares with this file. -->\n"
_SHOWN = {"default": "always", "wide": "`-o wide`", "json": "`-o json`, `--columns`"}
_CUT = (
    "A text is null if it could not be read. A member `…_cut` is present, and true, if its text was truncated; a "
    "member `…_bytes` if it is not UTF-8, with the exact bytes in base64."
)
_TYPES = {"text": "string", "int": "number", "bool": "true or false", "texts": "list of strings"}
_UNITS = {
    "gadget_duration": "nanoseconds",
    "gadget_bytes": "bytes",
    "gadget_millicores": "thousandths of a CPU",
    "gadget_timestamp": "RFC 3339, UTC",
}
"""Units of a column's main member, by the typedef of its field."""
_ColumnKey = tuple[str, str, str]
"""Name, title and meaning of a column, by which gadgets share it."""


class Outcome(TypedDict, total=False):
    """The result of one gadget on one kernel, as written by tests/vm/table.py."""

    refused: str
    count: str
    hooks: list[str]
    without: list[str]


class Kernel(TypedDict):
    """One kernel in docs/kernels.json."""

    release: str
    gadgets: dict[str, Outcome]


def pages() -> dict[str, str]:
    """The text of every page, by its path below docs/."""
    from kubectl_gadget.gadgets import load_gadget

    gadgets = [load_gadget(entry.name) for entry in index()]
    shared = _shared_columns(gadgets)
    found = {
        "flags.md": _flags_page(),
        "columns.md": _columns_page(shared),
        "advise-flags.md": _advise_page(),
        "observe-flags.md": _observe_page(),
        "gadgets/README.md": _list_page(),
        "design/packages.md": _packages_page(),
    }
    found |= {name: _page([text]) for name, text in rules.pages().items()}
    return found | {f"gadgets/{gadget.name}.md": _gadget_page(gadget, shared.keys()) for gadget in gadgets}


def stale(folder: Path = DOCS) -> list[str]:
    """Paths of the pages in `folder` that are missing, differ, or belong to a removed gadget."""
    wanted = pages()
    wrong = [name for name, text in wanted.items() if _read(folder / name) != text]
    there = {f"{part}/{path.name}" for part in ("gadgets", "diagnose") for path in (folder / part).glob("*.md")}
    return sorted({*wrong, *(there - wanted.keys())})


def write(folder: Path = DOCS) -> None:
    """Writes all pages, and deletes those of removed gadgets."""
    wanted = pages()
    for part in ("gadgets", "design", "diagnose"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in stale(folder):
        if name in wanted:
            (folder / name).write_text(wanted[name])
        else:
            (folder / name).unlink()


def main() -> None:
    """Writes the pages, or compares them with --check."""
    if sys.argv[1:] != ["--check"]:
        write()
        return
    if wrong := stale():
        sys.stderr.write(f"stale: {', '.join(wrong)}\ntry: python -m docs.reference\n")
        sys.exit(1)


def _flags_page() -> str:
    parts = [
        "# Flags that all gadgets share",
        "`kubectl gadget options` prints these too. `-n`, `-A`, `-l` and the flags of the connection work before and "
        "after every sub-command; the later wins. Values may be written as kubectl accepts them: `-n prod`, `-n=prod`, "
        "`--wait=false`.",
        TARGETS.replace("\n", " `", 1).replace("  ", "` `") + "`.",
    ]
    for title, flags in options_command().text.panels().items():
        parts += [f"## {title}", _flag_table(flags)]
    return _page(parts)


def _advise_page() -> str:
    parts = [
        "# Flags of advisors",
        "[advise.md](advise.md) explains what they do. Besides these, all take the flags of the connection, and those "
        "under More in [flags.md](flags.md) that are about agents and buffers.",
    ]
    group = root().find("advise")
    assert isinstance(group, GadgetGroup)
    for name, entry in group.entries.items():
        by_title = entry.load().text.panels()
        examples = "\n".join(f"# {example.description}\n{example.command}" for example in entry.page().examples)
        parts += [f"## {name}", f"{entry.summary}.", f"```sh\n{examples}\n```", _flag_table(by_title[SHOW])]
    return _page(parts)


def _observe_page() -> str:
    from kubectl_gadget.observe.story import GADGET

    by_title = make_command(observe.observe, "observe", Page).text.panels()
    by_title[POLICIES] += [flag for flag in by_title[ENGINE] if "--objects" in flag.spellings]
    shown = (SHOW, observe.CHOICE, POLICIES)
    parts = [
        "# Flags and columns of observe",
        "[observe.md](observe.md) explains what it does. Besides these, it takes [the flags of all gadgets](flags.md).",
        *(part for title in shown for part in (f"## {title}", _flag_table(by_title[title]))),
        *_column_parts(GADGET),
    ]
    return _page(parts)


def _list_page() -> str:
    rows = [(f"[{' '.join(entry.command)}]({entry.name}.md)", entry.group, entry.summary) for entry in index()]
    parts = ["# Gadgets", "`kubectl gadget list` prints these too.", _table(("gadget", "group", "shows"), rows)]
    return _page(parts + _tested())


def _packages_page() -> str:
    parts = [
        "# Packages",
        "The packages of `kubectl_gadget/`, from top to bottom. `lint-imports` checks that a package imports only from "
        "those below it. `kubectl_gadget/built/` has the output of the build: objects, gadgets as JSON, the payload. "
        "Modules beside the packages (`errors.py`, …) are left out.",
    ]
    for title, rows in floors():
        parts += [f"## {title}", _table(("package", "contents", "imports"), rows)]
    return _page(parts)


def _tested() -> list[str]:
    """The table of kernels on which each gadget was tested by `make kernels`."""
    known = json.loads(_read(DOCS / "kernels.json") or "{}")
    if not known:
        return []
    order = sorted(known.values(), key=lambda kernel: _numbers(kernel["release"]))
    head = ("gadget", "from", *map(_title, order))
    rows = [
        (
            f"[{' '.join(entry.command)}]({entry.name}.md)",
            _first(order, entry.name),
            *(_outcome(kernel["gadgets"].get(entry.name)) for kernel in order),
        )
        for entry in index()
    ]
    dates = ", ".join(f"`{kernel['release']}` on {kernel['date']}" for kernel in order)
    return [
        "## On which kernels and hooks they were tested",
        f"Written by `make kernels`: {dates}. Each gadget is loaded and attached as an agent does it, and a test "
        "repeats what it traces a known number of times and counts the rows (✓). The hooks are those that this kernel "
        "loaded; `kubectl gadget … --verbose` names each. `from` is the oldest of these kernels on which it is loaded "
        "and attached. A ○ is loaded and attached there, but not counted; a ✗ is "
        "not, for the reason given.",
        _table(head, rows),
    ]


def _title(kernel: Kernel) -> str:
    title = f"Linux {re.split('[-+]', kernel['release'])[0]}"
    return f"{title} on arm64" if kernel["release"].endswith("arm64") else title


def _first(order: Sequence[Kernel], name: str) -> str:
    """The oldest kernel on which the gadget works."""
    taking = (kernel for kernel in order if "refused" not in kernel["gadgets"].get(name, {"refused": ""}))
    return next((".".join(map(str, _numbers(kernel["release"])[:2])) for kernel in taking), "none")


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)[:3]]


def _outcome(found: Outcome | None) -> str:
    if found is None:
        return ""
    if "refused" in found:
        return f"✗ {found['refused'].partition('cannot run here: ')[2] or found['refused']}"
    mark = {"passed": "✓", "failed": "✗ counted wrong,"}.get(found["count"], "○")
    kinds = sorted({hook.split("/")[0].split(" ")[0] for hook in found["hooks"]})
    without = f", without {', '.join(found['without'])}" if found["without"] else ""
    return f"{mark} {', '.join(kinds) or 'no BPF'}{without}"


def _gadget_page(gadget: Gadget, shared: Collection[_ColumnKey]) -> str:
    command = " ".join(gadget.command)
    made = gadget_command(gadget, gadget.command[-1])
    by_title = made.text.panels()
    found = [flag for title, flags in by_title.items() if title.startswith((TABLE, "Flags of")) for flag in flags]
    own = [flag._replace(choices=made.choices(flag.name)) for flag in found]
    examples = "\n".join(f"# {example.description}\n{example.command}" for example in gadget.about.examples)
    output = _read(OUTPUTS / f"{gadget.name}.txt") or f"$ kubectl gadget {command}\n"
    parts = [f"# kubectl gadget {command}", f"{gadget.about.summary}.", f"```console\n{output}```"]
    if examples:
        parts += ["## Examples", f"```sh\n{examples}\n```"]
    if own:
        parts += ["## Flags", _flag_table(own), "And [the flags that all gadgets share](../flags.md)."]
    return _page([*parts, *_own_columns(gadget, shared), "## Details and limits", *_points(gadget.about.description)])


def _points(description: str) -> list[str]:
    """The first paragraph of a description, which says what is shown, and a list of the others."""
    first, *others = (" ".join(part.split()) for part in description.strip().split("\n\n"))
    points = (textwrap.fill(f"- {text}", 120, subsequent_indent="  ", break_long_words=False) for text in others)
    return [textwrap.fill(first, 120, break_long_words=False), *(["\n".join(points)] if others else [])]


def _own_columns(gadget: Gadget, shared: Collection[_ColumnKey]) -> list[str]:
    own = [column for column in gadget.columns if _key(gadget, column) not in shared]
    others: dict[str, list[str]] = {where: [] for where in _SHOWN.values()}
    for column in gadget.columns:
        if column not in own:
            others[_SHOWN[column.show]].append(f"`{column.name}`")
    said = "; ".join(f"{where}: {', '.join(names)}" for where, names in others.items() if names)
    table = [_table(_COLUMN_HEAD, (_column_row(gadget, column) for column in own))] if own else []
    return ["## Columns", *table, *([f"And [columns that gadgets share](../columns.md), {said}."] if said else [])]


_COLUMN_HEAD = ("name", "title", "shown", "what it is", "JSON")


def _column_row(gadget: Gadget, column: Column) -> tuple[str, ...]:
    members = ", ".join(f"`{name}` {kind}".rstrip() for name, kind in _members(gadget, column))
    return f"`{column.name}`", column.title, _SHOWN[column.show], _meaning(gadget, column), members


def _key(gadget: Gadget, column: Column) -> _ColumnKey:
    return column.name, column.title, _meaning(gadget, column)


def _shared_columns(gadgets: Sequence[Gadget]) -> dict[_ColumnKey, tuple[Gadget, Column]]:
    """The columns that most gadgets have, in the same words, each with one gadget that has it."""
    found = {_key(gadget, column): (gadget, column) for gadget in gadgets for column in gadget.columns}
    times = Counter(_key(gadget, column) for gadget in gadgets for column in gadget.columns)
    return {key: found[key] for key in times if times[key] > len(gadgets) / 2}


def _columns_page(shared: Mapping[_ColumnKey, tuple[Gadget, Column]]) -> str:
    found = [_column_row(gadget, column) for gadget, column in shared.values()]
    rows = [(name, title, *others) for name, title, _, *others in found]
    head = tuple(title for title in _COLUMN_HEAD if title != "shown")
    return _page(["# Columns that gadgets share", *_READING, _table(head, rows)])


_READING = [
    "Names are for `--columns`; titles are the headings of tables. A cell with `-` has no value, or an unknown one: in "
    "JSON it is null, -1 or an empty text.",
    "`-o json` prints one object a line, with the members in the last column of these tables. `--filter`, `--fail-on`, "
    "`--expect` and the templates of `-o jsonpath=…` and `-o custom-columns=…` use the same names. " + _CUT,
    "A gadget's page says which of these columns it has, and which it shows without `-o wide`.",
]


def _column_parts(gadget: Gadget) -> list[str]:
    return ["## Columns", *_READING[:2], _table(_COLUMN_HEAD, (_column_row(gadget, item) for item in gadget.columns))]


def _meaning(gadget: Gadget, column: Column) -> str:
    """The column's description, and the names of its values unless the description has them all."""
    field = _field(gadget, column)
    names = [name for _, name in field.flags or field.values] if field else []
    if all(name in column.description for name in names):
        return column.description
    kind = "any of" if field and field.flags else "one of"
    return f"{column.description} ({kind} {', '.join(f'`{name}`' for name in names)})"


def _field(gadget: Gadget, column: Column) -> Field | None:
    return next((field for field in gadget.record.fields if field.name == field_of(column)), None)


def _members(gadget: Gadget, column: Column) -> list[tuple[str, str]]:
    """The members of a column in JSON, and their types."""
    own = {member.name for member in column_members(gadget, column)}
    rows: list[tuple[str, str]] = []
    for member in row_members(gadget):
        if member.name in own:
            field = _field(gadget, column) if member.name == column.name else None
            unit = _UNITS.get(field.type) if field else None
            kind = _TYPES.get(member.type, member.type) + (f" ({unit})" if unit else "")
            if member.name.endswith(("_cut", "_bytes")) and member.optional:
                rows.append((f"…_{member.name.rpartition('_')[2]}", ""))
                continue
            rows.append((member.name, kind + (" or left out" if member.optional else "")))
    return rows


def _flag_table(flags: Sequence[FlagText]) -> str:
    return _table(("flag", "what it does"), [(f"`{flag.shown}`", _flag_meaning(flag)) for flag in flags])


def _flag_meaning(flag: FlagText) -> str:
    """The flag's help, and its values unless the help has them all."""
    if not flag.shown.endswith(" WORD") or all(word in flag.help for word in flag.choices):
        return flag.help
    return f"{flag.help} (one of {', '.join(f'`{word}`' for word in flag.choices)})"


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _page(parts: Sequence[str]) -> str:
    return _NOTE + "\n\n".join(parts) + "\n"


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


if __name__ == "__main__":
    main()
