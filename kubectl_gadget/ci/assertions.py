"""Assertions: a YAML file that says what must be seen, how often, and what must not.

    assertions:
      - name: no shell
        what: fact program
        condition: program.endsWith("/sh")
        count: == 0

`what` decides what a condition may name: the columns of a gadget, or the members of a fact, and `open` is the name of
both; so conditions are compiled here, and each error has its place in the file.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget.behavior.facts import FactKind
from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import cel
from kubectl_gadget.filters.check import check, column_shapes
from kubectl_gadget.filters.filter import Filter, compile_filter
from kubectl_gadget.gadgets import load_gadget, load_index
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.reports.model import Finding, Severity, SourceLocation
from kubectl_gadget.wording import did_you_mean
from kubectl_gadget.yaml_files import SchemaField, read_yaml
from kubectl_gadget.yaml_reader import Part, Problems, WrongYaml, read_mapping

_OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FACT = "fact "
_COUNT = re.compile(r"\s*(==|!=|>=|<=|>|<)?\s*([0-9]{1,9})\s*")
FACT_MEMBERS: Mapping[str, str] = {
    "namespace": "text",
    "workload": "text",
    "container": "text",
    "program": "text",
    "value": "text",
    "pods": "int",
    "count": "int",
}
"""The names for conditions on facts, with their types."""
SCHEMA = SchemaField(
    "",
    "object",
    fields=(
        SchemaField(
            "assertions",
            "list of object",
            "what is checked",
            required=True,
            fields=(
                SchemaField("name", "text", "a name for reports", required=True),
                SchemaField("what", "text", "a gadget: open, tcp; or facts: fact program, fact connect", required=True),
                SchemaField("condition", "text", "CEL over the gadget's columns, or a fact's members", default="all"),
                SchemaField("count", "text or number", "how many match", default=">= 1"),
                SchemaField(
                    "per", "word", "each pod by itself, or all together", default="all", choices=("all", "pod")
                ),
                SchemaField("step", "text", "only within this step"),
                SchemaField("level", "text", default="error", choices=tuple(Severity)),
                SchemaField("message", "text", "what a finding says"),
            ),
        ),
    ),
)


def stream_gadgets() -> dict[str, str]:
    """The gadgets that a run can watch beside others, by the word after `trace`."""
    return {entry.command[-1]: entry.name for entry in load_index() if entry.command[0] == "trace"}


@dataclass(frozen=True)
class Amount:
    """A condition on a number."""

    sign: str
    number: int

    def holds(self, count: int) -> bool:
        """True if this many are right."""
        return _OPERATORS[self.sign](count, self.number)

    def could_change(self, count: int) -> bool:
        """True if more than these could change the answer, which makes it undecided when events were lost."""
        more = (count + 1, self.number - 1, self.number, self.number + 1)
        return any(self.holds(number) != self.holds(count) for number in more if number > count)

    def __str__(self) -> str:
        return f"{self.sign} {self.number}"


NONE = Amount("==", 0)


@dataclass(frozen=True)
class Assertion:
    """One assertion. It has `rows` with `gadget`, or `facts` with `kind`."""

    name: str
    amount: Amount
    source: SourceLocation | None = None
    gadget: Gadget | None = None
    rows: Filter | None = None
    """None: all rows of the gadget"""
    kind: FactKind | None = None
    facts: cel.Tree | None = None
    """None: all facts of the kind"""
    text: str = ""
    per_pod: bool = False
    step: str = ""
    level: Severity = Severity.ERROR
    message: str = ""

    @property
    def describes(self) -> str:
        """The assertion in words."""
        what = f"facts {self.kind}" if self.kind else f"events {self.gadget.event if self.gadget else ''}"
        condition = f" with {self.text}" if self.text else ""
        where = (" in each pod" if self.per_pod else "") + (f" in the step {self.step!r}" if self.step else "")
        return f"the number of {what}{condition}{where} is {self.amount}"


def judged(
    asked: Assertion, total: int, found: Sequence[Finding], otherwise: Finding, missing: str
) -> tuple[list[Finding], str]:
    """Return the verdict on `total` seen: no finding, one for each in `found` if there must be none, or `otherwise`; or
    why it cannot be said, if something is `missing`."""
    if missing and asked.amount.could_change(total):
        return [], f"{total:,} were seen, and {missing}"
    if asked.amount.holds(total):
        return [], ""
    return list(found) if asked.amount == NONE and found else [otherwise], ""


def read_assertions(path: Path) -> tuple[Assertion, ...]:
    """Reads a file. Raises UsageError with the line and column of each mistake."""
    return read_yaml(path, lambda text: parse_assertions(str(path), text))


def parse_assertions(file: str, text: str) -> tuple[Assertion, ...]:
    """Reads the text of a file. Raises UsageError."""
    whole, problems, found = read_mapping(file, text, SCHEMA), Problems(SCHEMA), list[Assertion]()
    for part in whole.parts("assertions"):
        with problems.collecting():
            found.append(_assertion(part))
    names = [each.name for each in found]
    for each in found:
        if names.count(each.name) > 1:
            problems.add(whole.at("assertions"), f"has two assertions with the name {each.name!r}")
    problems.raise_if_any()
    return tuple(found)


def _assertion(part: Part) -> Assertion:
    match = _COUNT.fullmatch(part.text("count", ">= 1"))
    if not match:
        part.fail("count", "must be a number, or a comparison such as == 0 or >= 3")
    what, text, place = part.text("what"), part.text("condition"), part.at("name")
    gadget, kind, rows, facts = None, None, None, None
    try:
        if what.startswith(_FACT):
            kind = _kind(part, what.removeprefix(_FACT).strip())
            if text:
                facts = cel.parse(text)
                check(text, facts, column_shapes(FACT_MEMBERS))
        else:
            gadget = _gadget(part, what)
            rows = compile_filter(text, [gadget]) if text else None
    except WrongYaml:
        raise
    except UsageError as error:
        part.fail("condition", f"{error}; try: {error.remedy}" if error.remedy else str(error))
    if kind is not None and part.text("step"):
        part.fail("step", "is only for gadgets: a fact is about the whole run")
    if kind is not None and part.text("per") == "pod":
        part.fail("per", "is only for gadgets: a fact is about all pods of a workload; it has `pods`")
    return Assertion(
        name=part.text("name"),
        amount=Amount(match[1] or "==", int(match[2])),
        source=SourceLocation(place.file, place.line, place.column),
        gadget=gadget,
        rows=rows,
        kind=kind,
        facts=facts,
        text=text,
        per_pod=part.text("per") == "pod",
        step=part.text("step"),
        level=Severity(part.text("level", "error")),
        message=part.text("message"),
    )


def _kind(part: Part, name: str) -> FactKind:
    if name not in tuple(FactKind):
        part.fail("what", f"is not a kind of fact; it is one of {', '.join(FactKind)}")
    return FactKind(name)


def _gadget(part: Part, what: str) -> Gadget:
    known = stream_gadgets()
    if what not in known:
        near = did_you_mean(what, [*known, *(f"{_FACT}{kind}" for kind in FactKind)])
        part.fail("what", f"is neither a gadget (kubectl gadget list) nor a fact{near}")
    return load_gadget(known[what])
