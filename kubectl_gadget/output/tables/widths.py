"""Widths of texts and columns, in terminal cells rather than characters.

On a terminal the columns fit its width: columns that stretch get the remaining width, and shrink first. In a pipe
nothing is cut, and a column only grows. The trap: East Asian characters take two cells and combining marks none;
computing the width of each cell is slow, so the width of plain ASCII is its length.
"""

from collections.abc import Collection, Sequence

from kubectl_gadget.output.shown_columns import Heading

GAP = "  "
ELLIPSIS = "…"
_STRETCH_LEAST = 12
_TEXT_LEAST = 10


def text_width(text: str) -> int:
    """Width of a printable text in cells."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth  # its tables take 10 ms

    return max(wcswidth(text), 0)


def widest(texts: Sequence[str]) -> int:
    """Width of the widest text in cells."""
    if not texts:
        return 0
    if "".join(texts).isascii():
        return max(map(len, texts))
    return max(map(text_width, texts))


def cut(text: str, width: int) -> str:
    """The text cut to at most `width` cells; an ellipsis marks the cut."""
    if text_width(text) <= width:
        return text
    if text.isascii():
        return text[: width - 1] + ELLIPSIS
    from wcwidth import wcwidth

    room, kept = width - 1, 0
    for number, character in enumerate(text):
        kept += max(wcwidth(character), 0)
        if kept > room:
            return text[:number] + ELLIPSIS
    return text


def pad(text: str, width: int, align: str) -> str:
    """The text padded with spaces to `width` cells."""
    blanks = " " * (width - text_width(text))
    return blanks + text if align == "right" else text + blanks


def fit(headings: Sequence[Heading], seen: Sequence[int], available: int, *, wraps: bool = False) -> list[int]:
    """Widths for a terminal of `available` columns. `seen` has the widest cell of each column so far.

    Width is taken away in this order: what stretching columns have beyond their default width, then spaces, then
    stretching columns down to a few cells, then all others down to their titles. With `wraps`, no number is cut, and a
    name only as far as it stays recognizable, or not at all if it must stay whole: instead the line continues in the
    next one, as in kubectl's tables, and fills it before anything is cut.
    """
    room = available - len(GAP) * (len(headings) - 1)
    widths = [max(heading.width, text_width(heading.title)) for heading in headings]
    least = [text_width(heading.title) for heading in headings]
    excess = sum(widths) - room
    if excess > 0:
        floors = [max(low, _STRETCH_LEAST) for low in least]
        others = [n for n, h in enumerate(headings) if not h.stretch]
        excess = _shrink(widths, others, list(map(max, least, seen)), excess)
        excess = _shrink(widths, [n for n, h in enumerate(headings) if h.stretch], floors, excess)
        if wraps:
            least = [
                max(low, width if heading.whole or heading.align == "right" else min(width, _TEXT_LEAST))
                for low, width, heading in zip(least, seen, headings, strict=True)
            ]
        excess = _shrink(widths, others, least, excess)
        if not wraps:
            _shrink(widths, list(range(len(widths))), [1] * len(widths), excess)
        if not wraps or excess == 0:
            return widths
        excess = -(-excess % available)
    for number, heading in enumerate(headings):
        if not heading.stretch:
            wider = min(max(seen[number] - widths[number], 0), -excess)
            widths[number] += wider
            excess += wider
    stretching = [number for number, heading in enumerate(headings) if heading.stretch]
    for place, number in enumerate(stretching):
        share = -excess // (len(stretching) - place)
        widths[number] += share
        excess += share
    return widths


def fitting(
    headings: Sequence[Heading],
    available: int,
    narrow: Sequence[str] = (),
    keep: str = "",
    *,
    empty: Collection[str] = (),
    distinguishing: Collection[str] = (),
) -> list[Heading]:
    """The columns for a terminal of `available` columns, at least one.

    Columns are dropped in this order: the `empty` ones, those of `narrow`, then the last ones; those in
    `distinguishing`, which distinguish rows, go after all others, and the column `keep` is never dropped.
    """
    found = list(headings)
    order = [*narrow, *(heading.name for heading in reversed(headings) if heading.name not in narrow)]
    order.sort(key=lambda name: 0 if name in empty else 2 if name in distinguishing else 1)
    for name in order:
        if sum(map(_least, found)) + len(GAP) * (len(found) - 1) <= available or len(found) == 1:
            break
        found = [heading for heading in found if heading.name != name or name == keep]
    return found


def _least(heading: Heading) -> int:
    """The minimum useful width of a column in cells: numbers cannot be cut, names and paths can."""
    title = text_width(heading.title)
    if heading.align == "right":
        return max(title, heading.width)
    return max(title, min(heading.width, _STRETCH_LEAST if heading.stretch else _TEXT_LEAST))


def _shrink(widths: list[int], columns: list[int], least: Sequence[int], excess: int) -> int:
    """Takes `excess` cells from these columns, the widest first; returns what could not be taken."""
    while excess > 0:
        shrinkable = [number for number in columns if widths[number] > least[number]]
        if not shrinkable:
            return excess
        widths[max(shrinkable, key=lambda number: widths[number] - least[number])] -= 1
        excess -= 1
    return 0
