"""Rules: YAML files that say what to look for, when it is a finding, what it explains, and its words.

    - name: connection-refused
      group: network
      severity: error
      seen:
        refused: {gadget: trace_tcp, where: 'error == "ECONNREFUSED"', by: [remote, remote_port]}
      peer: {address: refused.remote, port: refused.remote_port}
      when: refused.count >= 2 && !peer.listens
      title: "{peer.name} refuses connections at port {peer.port}"
      …

A rule is checked when it is read: conditions over rows against the gadget's columns, `when` against the names that the
rule defines, placeholders against the same names. Tests check its examples (examples.py),
and a user's rules are checked before a run. `docs/design/diagnose.md` describes the language.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from kubectl_gadget import gadgets
from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import cel
from kubectl_gadget.filters.filter import Filter, RowProgram, compile_filter
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.reports.model import Severity
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.wording import did_you_mean
from kubectl_gadget.yaml_files import SchemaField, read_yaml
from kubectl_gadget.yaml_reader import Part, read_mapping


class Confidence(StrEnum):
    """The certainty of a finding: its evidence proves it, or it is the usual cause, or one of several."""

    PROVEN = "proven"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Scope(StrEnum):
    """The owner of the observations that a rule joins with its first set."""

    CONTAINER = "container"
    POD = "pod"
    WORKLOAD = "workload"
    PEER = "peer"
    """the pods of the other end"""
    NODE = "node"


class Relation(StrEnum):
    """The relation of a finding to its symptom."""

    CONTAINER = "container"
    POD = "pod"
    WORKLOAD = "workload"
    PEER = "peer"
    """the symptom's other end is what the finding is about"""
    BACK = "back"
    """the finding's other end is what the symptom is about"""
    NODE = "node"


_MEMBERS = {
    "container": (
        "namespace pod container node init image state reason message exit_code signal started_seconds "
        "last_reason last_message last_exit_code last_signal last_seconds restarts ready started memory_limit "
        "cpu_limit memory_request cpu_request liveness readiness startup user non_root read_only_root added dropped "
        "seccomp environment mounts ports command age_seconds grace_seconds fs_group pre_stop"
    ),
    "pod": (
        "namespace pod node phase reason message scheduled ready deleting_seconds age_seconds host_network "
        "dns_policy ndots volumes fs_group grace_seconds containers"
    ),
    "event": "namespace pod container node kind name workload reason message type times age_seconds",
    "service": "namespace service selector port target_port protocol ready not_ready selected",
    "last_words": "namespace pod container node image says name error what exit_code",
    "change": "namespace workload age_seconds images environment volumes revision ready replicas",
}
OBJECTS: Mapping[str, tuple[str, ...]] = {kind: tuple(words.split()) for kind, words in _MEMBERS.items()}
"""The kinds of API records that rules look at, with their members (cluster.py)."""
ROW_VIEW = ("count", "rate", "first", "last", "seconds", "row", "each", "before")
"""Names that `when` and words can use for a set, beside its `by` columns and `measure`."""
PEER_VIEW = (
    *("address", "port", "kind", "name", "namespace", "pod", "workload", "service", "node", "listens", "loopback_only"),
    *("other_ports", "ready", "known", "known_sockets", "target_port", "running", "backends", "policies"),
    "service_ports",
)
ENTITY = ("namespace", "pod", "container", "node", "workload", "pods", "object", "policies")
RUN = ("seconds", "whole")


@dataclass(frozen=True)
class SeenSet:
    """Rows of a gadget or records of the API that match a condition, grouped by columns."""

    name: str
    gadget: Gadget | None
    """None: records of the API"""
    object: str
    """the kind of the records; "" for rows"""
    condition: "Filter | RowProgram | None"
    equal: Mapping[str, tuple[str, ...]]
    """members that must have one of these values; asked before the condition"""
    by: tuple[str, ...]
    measure: tuple[str, ...]
    """numbers whose sum, maximum and (of a snapshot) sum in the first turn are kept"""
    of: Scope
    match: Mapping[str, str]
    """the columns of `by` that must be equal to a column of the first set"""
    where: str = ""
    is_receivers: bool = False
    """it counts for the receiver of a signal, not for its sender"""
    also: "SeenSet | None" = None
    """rows of another stream that count like its own"""

    @cached_property
    def row_condition(self) -> RowProgram | None:
        """Return the condition for one row that is given as in JSON; None for all rows."""
        return RowProgram(self.condition.tree) if isinstance(self.condition, Filter) else None


@dataclass(frozen=True)
class Words:
    """The words of a finding, with {placeholders}."""

    title: str
    cause: str = ""
    remedy: str = ""
    more: str = ""
    """the command that shows more"""
    why: str = ""
    """what the confidence rests on"""


@dataclass(frozen=True)
class Example:
    """An example of rows and records, and its expected finding (examples.py)."""

    what: str
    """in words, such as "one refusal among connections that work\""""
    finds: bool
    rows: tuple[Mapping[str, Any], ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
    places: tuple[Mapping[str, Any], ...] = ()
    """pods, services and nodes, with their addresses"""
    says: str = ""
    """words that the title has"""


@dataclass(frozen=True)
class Rule:
    """One rule."""

    name: str
    group: str
    severity: Severity
    confidence: Confidence
    seen: tuple[SeenSet, ...]
    """the first one decides whom a finding is about"""
    when: "RowProgram"
    peer: tuple[str, str, str] | None
    """the columns of the first set with the other end's address and port, and with its name if it is no pod, service
    or node of the cluster"""
    about: str
    """whom the finding is about: "self", or "peer\""""
    key: tuple[str, ...]
    """values, beside the workload, that make it another finding"""
    explains: tuple[tuple[str, Relation], ...]
    explained_by: tuple[tuple[str, Relation], ...]
    """causes, which `load` adds to what their rules explain"""
    words: Words
    description: str = ""
    provoke: str = ""
    examples: tuple[Example, ...] = ()
    file: str = ""

    @cached_property
    def gadgets(self) -> frozenset[str]:
        """Return the names of the gadgets whose rows it needs."""
        sets = [part for each in self.seen for part in (each, each.also) if part]
        return frozenset(part.gadget.name for part in sets if part.gadget)

    @cached_property
    def objects(self) -> frozenset[str]:
        """Return the kinds of the API's records that it needs."""
        return frozenset(each.object for each in self.seen if each.object)


_GADGET = SchemaField("gadget", "text", "whose rows: trace_tcp")
_WHERE = SchemaField("where", "text", "CEL over the columns")
_SET = (
    _GADGET,
    SchemaField("object", "text", "or records of the API", choices=tuple(OBJECTS)),
    _WHERE,
    SchemaField("equal", "map of list of text", "members that must have one of these values"),
    SchemaField("by", "list of text", "columns that make it another observation"),
    SchemaField("measure", "list of text", "numbers to sum up"),
    SchemaField("of", "word", "whose, for all but the first set", choices=tuple(Scope), default="container"),
    SchemaField("match", "map of text", "columns that must be equal to columns of the first set"),
    SchemaField("whose", "word", "of a signal", choices=("sender", "receiver"), default="sender"),
    SchemaField("also", "object", "rows of another stream that count, too", fields=(_GADGET, _WHERE)),
)
_EXAMPLE = (
    SchemaField("what", "text", "what it shows", required=True),
    SchemaField("finds", "flag", "if it must be a finding, or must not", required=True),
    SchemaField("rows", "anything", "rows of gadgets: gadget, times, pod, container, at, before, and columns"),
    SchemaField("records", "anything", "records of the API: object, times, and members"),
    SchemaField("places", "anything", "pods, services and nodes with their addresses"),
    SchemaField("says", "text", "words that the title must have"),
)
SCHEMA = SchemaField(
    "",
    "object",
    fields=(
        SchemaField(
            "rules",
            "list of object",
            required=True,
            fields=(
                SchemaField("name", "text", required=True),
                SchemaField("group", "text", required=True),
                SchemaField("severity", "word", required=True, choices=tuple(Severity)),
                SchemaField("confidence", "word", choices=tuple(Confidence), default="proven"),
                SchemaField("why", "text", "what the confidence rests on"),
                SchemaField("seen", "map of object", required=True, fields=_SET),
                SchemaField(
                    "peer",
                    "object",
                    fields=(SchemaField("address", "text"), SchemaField("port", "text"), SchemaField("name", "text")),
                ),
                SchemaField("when", "text", "CEL over the sets, peer, container, run", default="true"),
                SchemaField("about", "word", choices=("self", "peer"), default="self"),
                SchemaField("key", "list of text", "values that make it another finding"),
                SchemaField("explains", "map of text", "symptoms, and how they are related"),
                SchemaField("explained_by", "map of text", "causes whose rules need not know this one"),
                SchemaField("title", "text", required=True),
                SchemaField("cause", "text"),
                SchemaField("remedy", "text"),
                SchemaField("more", "text"),
                SchemaField("description", "text"),
                SchemaField("provoke", "text", "how to make it happen"),
                SchemaField("examples", "list of object", "what may be seen, and if it is a finding", fields=_EXAMPLE),
            ),
        ),
    ),
)
FORMS = ("seconds", "ns", "bytes", "mode", "count", "pod")
"""Formats of placeholders: a number, {lost.max_idle|ns}; or whose a process is: {blocked.holder_pod|pod}."""
PLACEHOLDER = re.compile(r"\{([a-z_]+(?:\.[a-z_]+)*)(?:\|([a-z]+))?\}")


def own_files() -> list[Path]:
    """Return the files of the built-in rules."""
    return sorted((Path(__file__).parent / "rules").glob("*.yaml"))


def load(files: Sequence[Path]) -> tuple[Rule, ...]:
    """Read rules; a later file replaces rules of the same name. Raises UsageError with the place."""
    found: dict[str, Rule] = {}
    for file in files:
        found.update((rule.name, rule) for rule in read_yaml(file, partial(_rules, str(file))))
    for rule in found.values():
        for verb, names in (("explains", rule.explains), ("is explained by", rule.explained_by)):
            for name, _ in names:
                if name not in found:
                    raise UsageError(
                        f"{rule.file}: {rule.name} {verb} {name!r}, which is no rule{did_you_mean(name, found)}"
                    )
    for rule in list(found.values()):
        for name, how in rule.explained_by:
            cause = found[name]
            found[name] = replace(cause, explains=(*cause.explains, (rule.name, how)))
    return tuple(found[name] for name in sorted(found))


def _rules(file: str, text: str) -> list[Rule]:
    return [_rule(file, part) for part in read_mapping(file, text, SCHEMA).parts("rules")]


def _rule(file: str, part: Part) -> Rule:
    seen = tuple(_seen_set(name, each) for name, each in part.named_parts("seen").items())
    if not seen:
        part.fail("seen", "a rule needs a set")
    known = dict(_names(seen))
    peer = part.part("peer")
    first = {f"{seen[0].name}.{column}": column for column in seen[0].by}
    ends = None
    if peer is not None:
        address, port, name = peer.text("address"), peer.text("port"), peer.text("name")
        for member, text in (("address", address), ("port", port), ("name", name)):
            if text and text not in first:
                peer.fail(member, f"{text!r} is no column by which the first set is grouped")
        ends = (first[address], first.get(port, ""), first.get(name, ""))
        known["peer"] = PEER_VIEW
    when = part.text("when", "true")
    words = Words(*(part.text(name) for name in ("title", "cause", "remedy", "more", "why")))
    for field in ("title", "cause", "remedy", "more", "why"):
        for path, form in PLACEHOLDER.findall(part.text(field)):
            _check_name(part, field, path, known)
            if form and form not in FORMS:
                part.fail(field, f"there is no form {form!r}{did_you_mean(form, FORMS)}")
    key = part.texts("key")
    for path in key:
        _check_name(part, "key", path, known)
    tree = _tree(part, "when", when)
    for path in _paths(when, tree, known):
        _check_name(part, "when", path, known)
    about = part.text("about", "self")
    if about == "peer" and ends is None:
        part.fail("about", "the rule has no `peer`")
    explains, explained_by = (
        tuple((name, Relation(how)) for name, how in part.text_map(field).items())
        for field in ("explains", "explained_by")
    )
    return Rule(
        part.text("name"),
        part.text("group"),
        Severity(part.text("severity")),
        Confidence(part.text("confidence", "proven")),
        seen,
        RowProgram(tree),
        ends,
        about,
        key,
        explains,
        explained_by,
        words,
        part.text("description"),
        part.text("provoke"),
        tuple(map(_example, part.parts("examples"))),
        file,
    )


def _example(part: Part) -> Example:
    def mappings(name: str) -> tuple[Mapping[str, Any], ...]:
        found = part.value(name) or ()
        if not isinstance(found, tuple) or not all(isinstance(each, Mapping) for each in found):
            part.fail(name, "must be a list of mappings")
        return found

    lists = mappings("rows"), mappings("records"), mappings("places")
    return Example(part.text("what"), part.flag("finds"), *lists, part.text("says"))


def _seen_set(name: str, part: Part, of: Part | None = None) -> SeenSet:
    """Read a set. `of`: the set that this one is `also` of, which says what it is grouped by."""
    of = of or part
    gadget, kind, where = part.text("gadget"), part.text("object"), part.text("where")
    if bool(gadget) == bool(kind):
        part.fail("gadget", "a set has either a gadget or an object")
    described = _gadget(gadget) if gadget else None
    condition: Filter | RowProgram | None = None
    if where and described is not None:
        try:
            condition = compile_filter(where, [described], "where")
        except UsageError as error:
            part.fail("where", str(error))
    elif where:
        tree = _tree(part, "where", where)
        for token in cel.identifiers(tree):
            if token.value not in OBJECTS[kind]:
                part.fail("where", f"{kind} has no {token.value!r}{did_you_mean(token.value, OBJECTS[kind])}")
        condition = RowProgram(tree)
    equal = {name: tuple(texts) for name, texts in _lists(part, "equal").items()}
    members = {*filter_members(described), "base"} if described else set(OBJECTS[kind])
    used = {"equal": equal, "by": of.texts("by"), "measure": part.texts("measure"), "match": part.text_map("match")}
    for field, columns in used.items():
        for column in columns:
            if column not in members:
                part.fail(field, f"{gadget or kind} has no {column!r}{did_you_mean(column, members)}")
    return SeenSet(
        name,
        described,
        kind,
        condition,
        equal,
        of.texts("by"),
        part.texts("measure"),
        Scope(part.text("of", "container")),
        part.text_map("match"),
        where,
        part.text("whose") == "receiver",
        _seen_set(name, also, part) if (also := part.part("also")) else None,
    )


_gadget = cache(gadgets.load_gadget)


def _lists(part: Part, name: str) -> Mapping[str, Sequence[str]]:
    return {key: tuple(map(str, texts)) for key, texts in (part.value(name) or {}).items()} if name in part else {}


def _names(seen: Sequence[SeenSet]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "run", RUN
    yield "self", ENTITY
    for each in seen:
        measures = [f"{kind}_{name}" for name in each.measure for kind in ("sum", "max", "before")]
        yield each.name, (*ROW_VIEW, *each.by, *measures, *(OBJECTS[each.object] if each.object else ()))


def _check_name(part: Part, field: str, path: str, known: Mapping[str, tuple[str, ...]]) -> None:
    head, _, rest = path.partition(".")
    member = rest.partition(".")[0]
    if head not in known:
        part.fail(field, f"{head!r} is neither a set nor peer, self or run{did_you_mean(head, known)}")
    if member and member not in known[head]:
        part.fail(field, f"{head} has no {member!r}{did_you_mean(member, known[head])}")


def _tree(part: Part, field: str, text: str) -> cel.Tree:
    try:
        return cel.parse(text)
    except UsageError as error:
        part.fail(field, str(error))


_QUOTED = re.compile("'[^']*'|\"[^\"]*\"")
_MEMBER = re.compile(r"(?<![\w.])([a-z_]+)\.([a-z_]+)(?!\w*\()")


def _paths(text: str, tree: cel.Tree, known: Mapping[str, object]) -> Iterator[str]:
    """Yield the names that an expression uses, with the members of those that are known: peer.pod."""
    yield from (str(token.value) for token in cel.identifiers(tree))
    yield from (f"{head}.{member}" for head, member in _MEMBER.findall(_QUOTED.sub("", text)) if head in known)
