"""Changes as text, JSON, Markdown and HTML: the worst first, and what a new program does folded below it.

Every text here may have been chosen by a container, and Markdown and HTML are read by programs with rights of their
own; so each format escapes everything that it would interpret.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set

from kubectl_gadget.behavior.comparison import Change, ChangeKind
from kubectl_gadget.behavior.facts import FactKind, Unit
from kubectl_gadget.output.escape import for_html, for_markdown, markdown_table
from kubectl_gadget.wording import count

_MOST_ROWS = 20
_HEAD = ("change", "level", "container", "what", "ATT&CK")
_TITLES = {
    ChangeKind.NEW: "new",
    ChangeKind.COUNT: "more or less often",
    ChangeKind.GONE: "gone",
}


def change_json(change: Change) -> dict[str, object]:
    return {
        "change": str(change.kind),
        "level": change.risk.level,
        "risk": change.risk.name,
        "attack": list(change.techniques),
        **change.fact.to_json(
            {
                "text": change.says,
                "versions_before": list(change.versions) or None,
                "other_image": change.other_image,
                "new_container": change.new_unit,
                "doubt": change.doubt or None,
                "before": change.before or None,
                "after": change.after or None,
            }
        ),
    }


def json_report(changes: Sequence[Change], doubts: Sequence[str]) -> str:
    return json.dumps({"changes": list(map(change_json, changes)), "inconclusive": list(doubts)}, indent=2) + "\n"


def verdict(changes: Sequence[Change], doubts: Sequence[str]) -> str:
    if not changes:
        return "no changes were seen, but the comparison is inconclusive" if doubts else "no changes"
    counts = [f"{n} {_TITLES[kind]}" for kind in ChangeKind if (n := sum(c.kind is kind for c in changes))]
    return ", ".join(counts) + (" (inconclusive: there may be more)" if doubts else "")


def text_report(changes: Sequence[Change], doubts: Sequence[str]) -> Iterator[str]:
    """Lines for people, not escaped."""
    yield verdict(changes, doubts)
    for (kind, image), part in _sections(changes):
        yield ""
        yield f"{_TITLES[kind].upper()}{image}"
        for unit, of_unit in _by_unit(part):
            yield f"  {unit}{'  (a new container)' if of_unit[0].new_unit else ''}"
            for change, folded in _folded(of_unit):
                yield f"    {_level(change):<7}  {_what(change)}"
                if folded:
                    yield f"             and {count(folded, 'note')} of this program"
    if doubts:
        yield ""
        yield "INCONCLUSIVE"
        yield from (f"  {text}" for text in doubts)


def markdown_report(changes: Sequence[Change], doubts: Sequence[str]) -> Iterator[str]:
    """A verdict, a table of the worst, and the rest folded."""
    yield f"**Behavior: {for_markdown(verdict(changes, doubts))}**"
    if changes:
        yield ""
        yield from _table(changes[:_MOST_ROWS])
    if changes[_MOST_ROWS:]:
        yield ""
        yield f"<details><summary>{len(changes) - _MOST_ROWS} more</summary>"
        yield ""
        yield from _table(changes[_MOST_ROWS:])
        yield ""
        yield "</details>"
    if doubts:
        yield ""
        yield "Inconclusive:"
        yield ""
        yield from (f"- {for_markdown(text)}" for text in doubts)


def _table(changes: Iterable[Change]) -> Iterator[str]:
    return markdown_table(_HEAD, (map(for_markdown, _cells(change)) for change in changes))


def html_report(changes: Sequence[Change], doubts: Sequence[str]) -> Iterator[str]:
    """One self-contained page without scripts."""
    yield '<!doctype html><html lang="en"><meta charset="utf-8"><title>Behavior</title>'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield (
        "<style>body{font:14px/1.4 system-ui,sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border-bottom:1px solid #ddd;padding:.3em .6em;text-align:left;vertical-align:top}"
        "td{overflow-wrap:anywhere}"
        ".error{color:#b00}.warning{color:#850}</style>"
    )
    yield f"<h1>{for_html(verdict(changes, doubts))}</h1>"
    if changes:
        yield f"<table><tr><th>{'<th>'.join(map(for_html, _HEAD))}</tr>"
        for change in changes:
            yield f'<tr class="{_level(change)}"><td>{"<td>".join(map(for_html, _cells(change)))}</tr>'
        yield "</table>"
    if doubts:
        yield f"<h2>Inconclusive</h2><ul>{''.join(f'<li>{for_html(text)}' for text in doubts)}</ul>"
    yield "</html>"


def _cells(change: Change) -> tuple[str, ...]:
    image = ", other image" if change.other_image else ""
    return f"{change.kind}{image}", _level(change), str(change.fact.unit), _what(change), " ".join(change.techniques)


def _level(change: Change) -> str:
    """The level of the change; empty for a fact that is gone."""
    return "" if change.kind is ChangeKind.GONE else change.risk.level


def _what(change: Change) -> str:
    risk = "" if change.kind is ChangeKind.GONE else f"{change.risk.name}: "
    return f"{risk}{change.fact.says}{_more(change)}"


def _sections(changes: Sequence[Change]) -> Iterator[tuple[tuple[ChangeKind, str], list[Change]]]:
    for kind in ChangeKind:
        for other, words in ((False, " with the same image"), (True, " with another image")):
            found = [change for change in changes if change.kind is kind and change.other_image is other]
            known = any(change.fact.images for change in found)
            if found:
                yield (kind, words if known or other else ""), found


def _by_unit(changes: Iterable[Change]) -> list[tuple[Unit, list[Change]]]:
    found: dict[Unit, list[Change]] = {}
    for change in changes:
        found.setdefault(change.fact.unit, []).append(change)
    return list(found.items())


def _folded(changes: Sequence[Change]) -> Iterator[tuple[Change, int]]:
    """Changes, each with the number of notes that are left out after it, such as a new program's reads of its
    libraries."""
    started = {c.fact.program for c in changes if c.fact.kind is FactKind.PROGRAM and c.kind is ChangeKind.NEW}
    left = Counter(c.fact.program for c in changes if _is_folded(c, started))
    for change in changes:
        if not _is_folded(change, started):
            is_program = change.fact.kind is FactKind.PROGRAM
            yield change, left.pop(change.fact.program, 0) if is_program else 0


def _is_folded(change: Change, started: Set[str]) -> bool:
    return change.risk.level == "note" and change.fact.program in started


def _more(change: Change) -> str:
    parts = []
    if change.kind is ChangeKind.COUNT:
        parts.append(f"{change.before:,} times per pod before, {change.after:,} now")
    if change.techniques:
        parts.append(" ".join(change.techniques))
    if change.doubt:
        parts.append("may not be new")
    return f"  [{'; '.join(parts)}]" if parts else ""
