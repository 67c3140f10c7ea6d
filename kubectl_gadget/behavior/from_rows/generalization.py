"""Rules that replace what differs between two runs of the same workload: pids, hashes, versions, random names.

They are data (generalization_rules.yaml), which users can show and extend. The trap: each rule is both a remedy against
false alarms and a place to hide, so programs keep their whole path except for pids and versions, and sensitive files
are never part of a pattern.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from kubectl_gadget.behavior.fact_patterns import literal
from kubectl_gadget.behavior.facts import FactKind
from kubectl_gadget.behavior.risk import encodable, re2_expression
from kubectl_gadget.yaml_files import read_yaml
from kubectl_gadget.yaml_reader import Part, read_mapping
from kubectl_gadget.yaml_schema import SchemaField

_RULE = (
    SchemaField("name", "text", required=True),
    SchemaField("match", "text", required=True),
    SchemaField("to", "text"),
    SchemaField("under", "list of text"),
    SchemaField("programs", "flag"),
    SchemaField("example", "list of text"),
)
LISTS = ("paths", "reads", "names", "pods", "values")
_IGNORED = (SchemaField("kind", "text", required=True, choices=tuple(FactKind)), SchemaField("match", "text"))
_DIRECTORIES = (SchemaField("most_names", "integer"), SchemaField("never", "list of text"))
_RULES = SchemaField(
    "",
    "object",
    fields=(
        *(SchemaField(name, "list of object", fields=_RULE) for name in LISTS),
        SchemaField("directories", "object", fields=_DIRECTORIES),
        *(SchemaField(name, "list of text") for name in ("sensitive", "multicall", "runtimes")),
        SchemaField("ephemeral_port", "integer"),
        SchemaField("ignored", "list of object", fields=_IGNORED),
    ),
)
_CACHED = 65536


def default_text() -> str:
    """The rules that come with the program, as a file."""
    return (resources.files("kubectl_gadget.behavior.from_rows") / "generalization_rules.yaml").read_text("utf-8")


@dataclass(frozen=True)
class GeneralizationRule:
    """One replacement."""

    name: str
    match: Any
    to: str
    under: tuple[str, ...] = ()
    programs: bool = False

    def applied(self, text: str) -> str:
        if self.under and not text.startswith(self.under):
            return text
        found: str = self.match.sub(self.to, text)
        return found


@dataclass(frozen=True)
class Rules:
    """All rules."""

    paths: tuple[GeneralizationRule, ...] = ()
    reads: tuple[GeneralizationRule, ...] = ()
    names: tuple[GeneralizationRule, ...] = ()
    pods: tuple[GeneralizationRule, ...] = ()
    values: tuple[GeneralizationRule, ...] = ()
    most_names: int = 0
    never: frozenset[str] = frozenset()
    sensitive: Any = None
    multicall: frozenset[str] = frozenset()
    runtimes: Any = None
    ephemeral_port: int = 0
    ignored: tuple[tuple[FactKind, Any], ...] = ()


def read_rules(path: Path | None = None) -> Rules:
    """The rules of the program, with those of a file before them. Raises UsageError."""
    own = _parsed("generalization_rules.yaml", default_text(), Rules())
    return own if path is None else read_yaml(path, lambda text: _parsed(str(path), text, own))


def _parsed(file: str, text: str, base: Rules) -> Rules:
    whole = read_mapping(file, text, _RULES)
    changes: dict[str, Any] = {key: (*(_rule(part) for part in whole.parts(key)), *getattr(base, key)) for key in LISTS}
    if (directories := whole.part("directories")) is not None:
        if "most_names" in directories:
            changes["most_names"] = max(1, int(directories.text("most_names"), 0))
        if "never" in directories:
            changes["never"] = frozenset(directories.texts("never"))
    if "multicall" in whole:
        changes["multicall"] = frozenset(whole.texts("multicall"))
    if "ephemeral_port" in whole:
        changes["ephemeral_port"] = int(whole.text("ephemeral_port"), 0)
    for key in ("sensitive", "runtimes"):
        if key in whole:
            changes[key] = re2_expression(whole, key, "|".join(whole.texts(key)))
    if "ignored" in whole:
        changes["ignored"] = tuple(
            (FactKind(part.text("kind")), re2_expression(part, "match", part.text("match")))
            for part in whole.parts("ignored")
        )
    rules = replace(base, **changes)
    for key in LISTS:
        _try_examples(whole.parts(key), Generalizer(rules).of_list(key))
    return rules


def _rule(part: Part) -> GeneralizationRule:
    match = re2_expression(part, "match", part.text("match"))
    return GeneralizationRule(part.text("name"), match, part.text("to"), part.texts("under"), part.flag("programs"))


def _try_examples(parts: Sequence[Part], applied: Callable[[str], str]) -> None:
    for part in parts:
        if "example" not in part:
            continue
        texts = part.texts("example")
        if len(texts) != 2:
            part.fail("example", "must have two texts: before, and after")
        if (found := applied(texts[0])) != texts[1]:
            part.fail("example", f"{texts[0]!r} becomes {found!r}, not {texts[1]!r}")


class Generalizer:
    """Applies rules. Texts repeat, so results are kept for a while."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.path = lru_cache(_CACHED)(lambda text: _applied(rules.paths, literal(text)))
        """a path of a file"""
        self.read_path = lru_cache(_CACHED)(lambda text: _applied(rules.reads, text))
        """the path of a file that is only read, as `path` returned it"""
        of_programs = tuple(rule for rule in rules.paths if rule.programs)
        self.program = lru_cache(_CACHED)(lambda text: _applied(of_programs, literal(text)))
        """the path of a program"""
        self.name = lru_cache(_CACHED)(lambda text: _applied(rules.names, literal(text.rstrip(".").lower())))
        """a name of DNS"""
        self.pod = lru_cache(_CACHED)(lambda text: _first(rules.pods, encodable(text)))
        """the name of a pod: the first rule that fits is the one that counts"""
        self.value = lru_cache(_CACHED)(lambda text: _applied(rules.values, literal(text)))

    def of_list(self, key: str) -> Callable[[str], str]:
        """Applies a list of rules to a text that may contain placeholders already."""
        rules: tuple[GeneralizationRule, ...] = getattr(self.rules, key)
        return (lambda text: _first(rules, text)) if key == "pods" else (lambda text: _applied(rules, text))

    def is_sensitive(self, path: str) -> bool:
        """Whether a file is never part of a pattern."""
        return self.rules.sensitive is not None and self.rules.sensitive.search(encodable(path)) is not None

    def is_runtime(self, program: str) -> bool:
        """Whether a program that came from outside the container is the container runtime."""
        return self.rules.runtimes is not None and self.rules.runtimes.search(encodable(program)) is not None

    def is_ignored(self, kind: FactKind, value: str) -> bool:
        """Whether no fact is made of it."""
        return any(kind is of and match.search(encodable(value)) for of, match in self.rules.ignored)


def _applied(rules: Sequence[GeneralizationRule], text: str) -> str:
    for rule in rules:
        text = rule.applied(text)
    return text


def _first(rules: Sequence[GeneralizationRule], text: str) -> str:
    return next((found for rule in rules if (found := rule.applied(text)) != text), text)
