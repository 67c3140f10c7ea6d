"""The rules of a redaction, and how they change a text, an address or a name.

The same value becomes the same word everywhere, so that related rows can still be recognized. A value occurs
in several spellings (an address as 16 bytes and as a text, a pod's name within a path), and all must go.
"""

import hashlib
import hmac
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from kubectl_gadget.filters.cel import Pattern, compile_pattern
from kubectl_gadget.yaml_files import SchemaField, read_yaml
from kubectl_gadget.yaml_reader import Part, WrongYaml, read_mapping

TAKEN = ("arguments", "contents", "addresses", "names")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
ACTIONS = ("remove", "hash")
_RULE = (
    SchemaField("name", "text"),
    SchemaField("take", "text", choices=TAKEN),
    SchemaField("match", "text"),
    SchemaField("action", "text", choices=ACTIONS, required=True),
)
_RULES = SchemaField("", "object", fields=(SchemaField("rules", "list of object", fields=_RULE, required=True),))
REMOVED = "removed"
_MOST_KNOWN = 100_000
_MAPPED = bytes(10) + b"\xff\xff"
_ADDRESS = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)|(?<![\w:])[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*"
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_ID = re.compile(r"[0-9a-f]{32,64}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}")
_LEAST_ID = 32
"""the length of the shortest text that _ID finds"""
_DOTS = 3
"""in the text of an IPv4 address"""
_LEAST_WORD = 3
"""A shorter name is replaced only where it is the whole value: as a word, it would be found everywhere."""


@dataclass(frozen=True)
class RedactionRule:
    """One rule. Either `take` or `match` is set."""

    name: str
    action: str
    take: str = ""
    match: str = ""


def read_rules(path: str) -> list[RedactionRule]:
    """Reads a file of rules; `default` is the one that comes with the program. Raises UsageError."""
    if path == "default":
        path = str(resources.files("kubectl_gadget.analysis") / "redaction_rules.yaml")
    return read_yaml(Path(path), lambda text: [_rule(item) for item in read_mapping(path, text, _RULES).parts("rules")])


def _rule(part: Part) -> RedactionRule:
    take, match = part.text("take"), part.text("match")
    if bool(take) == bool(match):
        raise WrongYaml(part.place, "needs either `take` or `match`")
    try:
        compile_pattern(match)
    except ValueError as error:
        part.fail("match", f"is not a regular expression of RE2: {error}")
    return RedactionRule(part.text("name") or take or match, part.text("action"), take, match)


class _Part(NamedTuple):
    """The text between two slashes, without names and addresses."""

    text: str
    names: bool
    """it had names"""
    addresses: bool


_SAME = _Part("", False, False)
"""it had neither"""


@dataclass
class Redactor:
    """Applies rules to values, and counts what they took out."""

    rules: Sequence[RedactionRule]
    secret: bytes
    names: set[str] = field(default_factory=set)
    """names of pods, nodes and so on, which are found before the first text is changed"""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """by rule and by column or kind of frame"""

    def __post_init__(self) -> None:
        self._taking: Mapping[str, RedactionRule] = {rule.take: rule for rule in self.rules if rule.take}
        self._matching = [(rule, compile_pattern(rule.match)) for rule in self.rules if rule.match]
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._known_parts: dict[str, _Part] = {}

    def takes(self, kind: str) -> RedactionRule | None:
        """The rule that takes this kind of values."""
        return self._taking.get(kind)

    def count(self, rule: str, where: str, times: int = 1) -> None:
        """Count a value that occurs `times` times."""
        self.counts[rule, where] += times

    def word(self, value: str, action: str = "hash") -> str:
        if action == "remove":
            return REMOVED
        digest = hmac.new(self.secret, value.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
        return f"x{digest[:12]}"

    def name(self, value: str, where: str) -> str:
        """A value that is a name as a whole."""
        rule = self.takes("names")
        if rule is None or value not in self.names:
            return self.text(value, where)
        self.count(rule.name, where)
        return self.word(value, rule.action)

    def text(self, value: str, where: str, times: int = 1) -> str:
        """A text, which may contain what rules take."""
        found = self._known.get(value)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[value] = self._changed(value)
        for rule in found[1]:
            self.count(rule, where, times)
        return found[0]

    def cut_path(self, value: str, where: str, times: int = 1) -> str:
        """For a path whose upper part is missing: no rule can tell whether it matches, so the first one takes it."""
        if not self._matching:
            return value
        rule = self._matching[0][0]
        self.count(rule.name, where, times)
        return self.word(value, rule.action)

    def address(self, raw: bytes, where: str, times: int = 1) -> bytes:
        """An address of 16 bytes. Loopback and unspecified addresses say nothing, and stay."""
        rule = self.takes("addresses")
        address = ipaddress.ip_address(raw[12:] if raw.startswith(_MAPPED) else raw)
        if rule is None or address.is_loopback or address.is_unspecified:
            return raw
        self.count(rule.name, where, times)
        made = self._other(address, rule.action)
        return made.packed if made.version == 6 else _MAPPED + made.packed

    def _other(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, action: str
    ) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """An address of a range that is not in use, for each address the same one."""
        digest = hmac.new(self.secret, address.packed, hashlib.sha256).digest() if action == "hash" else bytes(32)
        if address.version == 4:
            return ipaddress.IPv4Address(0xF0000000 | int.from_bytes(digest[:4], "big") & 0x0FFFFFFF)
        return ipaddress.IPv6Address(b"\xfd\xff" + digest[:14])

    def _as_path(self, action: str, part: str) -> str:
        return f"/{self.word(part, action)}"

    def _changed(self, value: str) -> tuple[str, tuple[str, ...]]:
        text, rules = value, list[str]()
        for rule, expression in self._matching:
            after = _replaced(expression, text, partial(self._as_path, rule.action))
            if after is not None:
                text = after
                rules.append(rule.name)
        names, addresses = self.takes("names"), self.takes("addresses")
        if names is not None and text in self.names:
            return self.word(text, names.action), (*rules, names.name)
        made = self._parts_changed(text)
        if made is _SAME:
            return text, tuple(rules)
        rules += [rule.name for rule, had in ((names, made.names), (addresses, made.addresses)) if rule and had]
        return made.text, tuple(rules)

    def _parts_changed(self, text: str) -> "_Part":
        """The text without names and addresses. Neither reaches beyond a slash, and the folders of paths repeat."""
        folder, slash, last = text.rpartition("/")
        found = self._part_changed(last)
        if not slash:
            return found
        above = self._known_parts.get(folder) or self._folder_changed(folder)
        if found is _SAME and above is _SAME:
            return _SAME
        return _Part(
            f"{folder if above is _SAME else above.text}/{last if found is _SAME else found.text}",
            above.names or found.names,
            above.addresses or found.addresses,
        )

    def _folder_changed(self, folder: str) -> "_Part":
        """The same for what is before the last slash."""
        parts = [
            self._known_parts.get(part) or self._keep(part, self._part_changed(part)) for part in folder.split("/")
        ]
        changed = [part for part in parts if part is not _SAME]
        if not changed:
            return self._keep(folder, _SAME)
        texts = [part if made is _SAME else made.text for part, made in zip(folder.split("/"), parts, strict=True)]
        names, addresses = any(part.names for part in changed), any(part.addresses for part in changed)
        return self._keep(folder, _Part("/".join(texts), names, addresses))

    def _keep(self, part: str, made: "_Part") -> "_Part":
        if len(self._known_parts) >= _MOST_KNOWN:
            self._known_parts.clear()
        self._known_parts[part] = made
        return made

    def _part_changed(self, part: str) -> "_Part":
        names, addresses = self.takes("names"), self.takes("addresses")
        without = part if names is None or not self.names else self._without_names(part, names)
        text = without
        if addresses is not None and (":" in text or text.count(".") >= _DOTS):
            text = _ADDRESS.sub(lambda found: self._address_text(found.group(), addresses), text)
        return _SAME if text == part == without else _Part(text, without != part, text != without)

    def _without_names(self, text: str, rule: RedactionRule) -> str:
        def replace(found: "re.Match[str]") -> str:
            word = found.group()
            return self.word(word, rule.action) if len(word) >= _LEAST_WORD and word in self.names else word

        # Most texts have no dots, and are shorter than an ID: then two of the three expressions find nothing more.
        for expression in (_WORD, *([_PART] if "." in text else ()), *([_ID] if len(text) >= _LEAST_ID else ())):
            if not self.names.isdisjoint(expression.findall(text)):  # far faster than a call for each word
                text = expression.sub(replace, text)
        return text

    def _address_text(self, text: str, rule: RedactionRule) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:  # with what is before it (`4:5:10.0.0.1`), or punctuation after it
            for known in (text.rstrip(":."), text.rpartition(":")[2]):
                if known and known != text:
                    changed = self._address_text(known, rule)
                    if changed != known:
                        return text.replace(known, changed)
            return text
        # An IPv6 address may hold an IPv4 one; not every version of Python looks at that one.
        plain = getattr(address, "ipv4_mapped", None) or address
        if plain.is_loopback or plain.is_unspecified:
            return text
        made = self._other(plain, rule.action)
        return f"{made}" if plain is address else f"::ffff:{made}"


def _replaced(expression: Pattern, text: str, make: Callable[[str], str]) -> str | None:
    """The text with every match replaced; None: there is none. re2 refuses bytes that are not UTF-8, which are lone
    surrogates here, so it sees another character in each place of one."""
    seen = text if text.isascii() else _NOT_UTF8.sub("\ufffd", text)
    if not expression.search(seen):
        return None
    parts, place = [], 0
    for found in expression.finditer(seen):
        if found.end() == found.start():
            continue
        parts += [text[place : found.start()], make(text[found.start() : found.end()])]
        place = found.end()
    return "".join([*parts, text[place:]])
