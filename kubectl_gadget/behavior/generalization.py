"""Rules that replace what differs between two runs of the same workload: pids, hashes, versions, random names.

They are data (generalization_rules.yaml), which users can show and extend. Each rule is both a remedy against false
alarms and a place to hide, so programs keep their whole path except for pids and versions, and sensitive files are
never part of a pattern.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from kubectl_gadget.behavior.comparison import literal
from kubectl_gadget.behavior.facts import READ, WRITE, FactKind
from kubectl_gadget.behavior.risk import encodable, re2_expression
from kubectl_gadget.filters.cel import Pattern
from kubectl_gadget.kube.inventory import Inventory, Workload
from kubectl_gadget.policies.network.evaluate import normal
from kubectl_gadget.yaml_files import SchemaField, read_yaml
from kubectl_gadget.yaml_reader import Part, read_mapping

_RULE = (
    SchemaField("name", "text", required=True),
    SchemaField("match", "text", required=True),
    SchemaField("to", "text"),
    SchemaField("under", "list of text"),
    SchemaField("programs", "flag"),
    SchemaField("example", "list of text"),
    SchemaField("access", "text", choices=(READ, WRITE)),
)
LISTS = ("paths", "reads", "names", "pods", "values", "dependencies", "libraries")
_EXPRESSIONS = ("sensitive", "runtimes", "interpreters", "exact", "kept")
_IGNORED = (SchemaField("kind", "text", required=True, choices=tuple(FactKind)), SchemaField("match", "text"))
_DIRECTORIES = (SchemaField("most_names", "integer"), SchemaField("never", "list of text"))
_RULES = SchemaField(
    "",
    "object",
    fields=(
        *(SchemaField(name, "list of object", fields=_RULE) for name in LISTS),
        SchemaField("directories", "object", fields=_DIRECTORIES),
        *(SchemaField(name, "list of text") for name in (*_EXPRESSIONS, "multicall")),
        SchemaField("ephemeral_port", "integer"),
        SchemaField("ignored", "list of object", fields=_IGNORED),
    ),
)
_CACHED = 65536
_HELD_NAME = "heldname"
_DIGEST = re.compile(r"/(<shard>/)?<(hex|uuid)>(\.[a-z]+)?$")
_ENDING = re.compile(r"\.[a-z]{1,5}$")


def default_text() -> str:
    """The rules that come with the program, as a file."""
    return (resources.files("kubectl_gadget.behavior") / "generalization_rules.yaml").read_text("utf-8")


@dataclass(frozen=True)
class GeneralizationRule:
    """One replacement."""

    name: str
    match: Pattern
    to: str
    under: tuple[str, ...] = ()
    programs: bool = False
    access: str = ""

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
    dependencies: tuple[GeneralizationRule, ...] = ()
    libraries: tuple[GeneralizationRule, ...] = ()
    sensitive: Pattern | None = None
    interpreters: Pattern | None = None
    exact: Pattern | None = None
    kept: Pattern | None = None
    multicall: frozenset[str] = frozenset()
    runtimes: Pattern | None = None
    ephemeral_port: int = 0
    ignored: tuple[tuple[FactKind, Pattern], ...] = ()


def read_rules(path: Path | None = None) -> Rules:
    """Return the rules of the program, with a file's rules before them. Raises UsageError."""
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
    for key in _EXPRESSIONS:
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
    return GeneralizationRule(
        part.text("name"), match, part.text("to"), part.texts("under"), part.flag("programs"), part.text("access")
    )


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
        self.path = lru_cache(_CACHED)(self._path)
        """a path of a file"""
        self.dependency = lru_cache(_CACHED)(self._dependency)
        """the dependency that a file belongs to, given its path and whether it is written; empty: none"""
        self.library = lru_cache(_CACHED)(self._library)
        """the library whose contents count, given its path; empty: none"""
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

    def _path(self, text: str) -> str:
        folder, slash, name = literal(text).rpartition("/")
        if self.rules.kept is None or (kept := self.rules.kept.search(name)) is None:
            return _applied(self.rules.paths, folder + slash + name)
        # Rules see whole paths, so a name that none of them changes stands for the one that is kept.
        found = _applied(self.rules.paths, f"{folder}{slash}{_HELD_NAME}")
        stays: str = next(filter(None, kept.groups()), name)
        return found.removesuffix(_HELD_NAME) + stays if found.endswith(slash + _HELD_NAME) else found

    def written(self, path: str) -> str:
        """The path of a file that is written or changed. In folders of the system, names stay as they are."""
        return literal(path) if self.is_exact(path) else self.path(path)

    def is_exact(self, path: str) -> bool:
        """True if a path is below a folder of the system, where each name counts."""
        return self.rules.exact is not None and self.rules.exact.search(encodable(path)) is not None

    def temporary(self, path: str, *ends: int) -> str:
        """A path that has temporary names, which end there. The ending of a name stays, if it is a usual one."""
        if ends == (len(path),) and _DIGEST.search(usual := self.path(path)):
            return usual  # rules know such names, and what is above them
        places = sorted(set(ends), reverse=True)
        for end in places:
            folder = path.rfind("/", 0, end) + 1
            ending = _ENDING.search(path[folder:end])
            path = f"{path[:folder]}{_HELD_NAME}{ending.group() if ending else ''}{path[end:]}"
        return self.path(path).replace(_HELD_NAME, "<tmp>", len(places))

    def program_below(self, path: str, ends: Iterable[int]) -> str:
        """The path of a program below a temporary directory, the first of these that has a random name, by where it
        ends; empty: none has."""
        for end in ends:
            if (folder := self.path(path[:end])) != literal(path[:end]):
                return f"{folder}{self.program(path[end:])}"
        return ""

    def is_interpreter(self, program: str) -> bool:
        """True if what a program does depends on the script that it runs."""
        return self.rules.interpreters is not None and self.rules.interpreters.search(encodable(program)) is not None

    def _dependency(self, path: str, access: str) -> str:
        text = encodable(path)
        for rule in self.rules.dependencies:
            if rule.access in ("", access) and (found := rule.match.search(text)) is not None:
                package: str = rule.match.sub(rule.to, found.group())
                return package.lower()
        return ""

    def _library(self, path: str) -> str:
        text = literal(path)
        return next((rule.applied(text) for rule in self.rules.libraries if rule.match.search(text)), "")

    def of_list(self, key: str) -> Callable[[str], str]:
        """Applies a list of rules to a text that may contain placeholders already."""
        rules: tuple[GeneralizationRule, ...] = getattr(self.rules, key)
        if key == "dependencies":
            return lambda text: next(filter(None, (self._dependency(text, access) for access in (READ, WRITE))), text)
        apply = _first if key in ("pods", "libraries") else _applied
        return lambda text: apply(rules, text)

    def is_sensitive(self, path: str) -> bool:
        """True if a file is never part of a pattern."""
        return self.rules.sensitive is not None and self.rules.sensitive.search(encodable(path)) is not None

    def is_runtime(self, program: str) -> bool:
        """True if a program that came from outside the container is the container runtime."""
        return self.rules.runtimes is not None and self.rules.runtimes.search(encodable(program)) is not None

    def is_ignored(self, kind: FactKind, value: str) -> bool:
        """True if no fact is made of it."""
        return any(kind is of and match.search(encodable(value)) for of, match in self.rules.ignored)


def _applied(rules: Sequence[GeneralizationRule], text: str) -> str:
    for rule in rules:
        text = rule.applied(text)
    return text


def _first(rules: Sequence[GeneralizationRule], text: str) -> str:
    return next((found for rule in rules if (found := rule.applied(text)) != text), text)


# The other end of a connection, named so that it is the same in the next run. In this order: localhost, a service or a
# workload of the cluster, a node, a name that DNS gave to this pod for the address, a DNS server of a private network,
# a network. A name that DNS gave says where the program wanted to go, and no address of the internet stays the same; so
# an address without a name is only "internet".

_DNS = 53
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7")
)
"""where a cluster or a company has its own DNS servers (RFC 1918, 6598, 3927, 4193)"""
EPHEMERAL = "<ephemeral>"
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "169.254.170.2"})
_SERVICE_PARTS = 3


class Destinations:
    """Looks up addresses among the cluster's objects of one run."""

    def __init__(self, inventory: Inventory, generalizer: Generalizer) -> None:
        self._generalizer = generalizer
        self._services = {normal(ip): item for item in inventory.services for ip in item.addresses}
        self._nodes = {normal(ip) for node in inventory.nodes for ip in node.own_addresses()}
        self._workloads: dict[str, Workload] = {}
        for pod in inventory.pods:
            if not pod.host_network:
                self._workloads |= dict.fromkeys(map(normal, pod.addresses), pod.workload)

    def learn(self, address: str, workload: Workload) -> None:
        """Notes that a pod of this workload has this address; the cluster's objects take precedence."""
        address = normal(address)
        if not ipaddress.ip_address(address).is_loopback and address not in self._nodes:
            self._workloads.setdefault(address, workload)

    def named(self, address: str, name: str) -> str:
        """The name of an address: `service shop/redis`; empty: it has none. `name`: what DNS called it."""
        try:
            where, _ = self._where(normal(address), name)
        except ValueError:
            return ""
        return "" if where.startswith(("network ", "internet", "multicast", "localhost")) else where

    def text(self, address: str, port: int, protocol: str, name: str) -> str:
        """`service shop/redis:6379/tcp`. `name`: what DNS called the address; empty: nothing."""
        where, is_inside = self._where(normal(address), name)
        if port == _DNS and where.startswith("network ") and _is_private(normal(address)):
            where = "DNS server"
        ephemeral = self._generalizer.rules.ephemeral_port
        number = EPHEMERAL if is_inside and 0 < ephemeral <= port else port
        return f"{where}:{number}/{protocol.lower()}"

    def _where(self, address: str, name: str) -> tuple[str, bool]:
        """The location of an address, and whether that is in the cluster."""
        if address in _METADATA:
            return "metadata service", False
        if _is_own(address):
            return "localhost", True
        if (service := self._services.get(address)) is not None:
            return f"service {service.namespace}/{service.name}", True
        if (workload := self._workloads.get(address)) is not None:
            return f"workload {workload}", True
        if address in self._nodes:
            return "node", True
        if name:
            text = self._generalizer.name(name)
            # The cluster's own names never stand for an address outside, whatever a DNS server answers.
            if not (text.endswith(".svc") and ipaddress.ip_address(address).is_global):
                return _named(text)
        return _network(address), False


def _named(name: str) -> tuple[str, bool]:
    """Return a DNS name; a service's name becomes the service."""
    parts = name.removesuffix(".svc").split(".")
    if name.endswith(".svc") and len(parts) < _SERVICE_PARTS:
        return f"service {parts[-1]}/{parts[0]}" if len(parts) > 1 else f"service {name}", True
    return f"name {name}", False


@lru_cache(65536)
def _is_own(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return found.is_loopback or found.is_unspecified


def _is_private(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in _PRIVATE)


@lru_cache(65536)
def _network(address: str) -> str:
    found = ipaddress.ip_address(address)
    if found.is_multicast:
        return "multicast"
    if found.is_link_local:
        return "network link-local"
    if found.is_global:
        return "internet"
    length = 24 if found.version == 4 else 64
    return f"network {ipaddress.ip_network(f'{address}/{length}', strict=False)}"
