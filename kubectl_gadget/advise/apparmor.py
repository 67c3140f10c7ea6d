"""AppArmor profiles from facts: the programs that a container may execute, its files, capabilities and networks.

What facts do not cover (Unix sockets, signals, ptrace among its own processes) is allowed. A profile applies from the
container's first program on, so usual files that facts leave out (/dev/null, /proc/self) must be in it.
"""

import re
from collections.abc import Collection, Iterable, Iterator

from kubectl_gadget.advise.baselines import (
    file_name,
    gaps,
    glob,
    interpreter,
    is_path,
    units_by_workload,
    without_applet,
)
from kubectl_gadget.advise.capabilities import used_capabilities
from kubectl_gadget.advise.documents import ContainerPatch, Document, patch
from kubectl_gadget.advise.uses import ContainerOf
from kubectl_gadget.behavior.facts import READ, WRITE, Behavior, Fact, FactKind, Unit

_NEEDED = frozenset({FactKind.PROGRAM, FactKind.OPEN, FactKind.CAPABILITY})
_USUAL = """\
  #include <abstractions/base>
  unix,
  signal (receive),
  signal (send) peer=@{profile_name},
  ptrace (trace, read, tracedby, readby) peer=@{profile_name},
  /dev/{null,zero,full,random,urandom,tty,ptmx,console,stdin,stdout,stderr} rw,
  /dev/pts/{,*} rw,
  @{PROC}/@{pid}/{,**} r,
  owner @{PROC}/@{pid}/{attr/**,comm,fd/*,oom_score_adj,task/*/attr/**,task/*/comm} w,
"""
_PROTOCOLS = {"tcp": "stream", "mptcp": "stream", "udp": "dgram", "sctp": "seqpacket"}
_BYTECODE = "__pycache__/*"
_CODE = re.compile(r"\.so(\.[0-9]+)*$")


def profiles(behavior: Behavior, multicall: Collection[str]) -> dict[ContainerOf, str]:
    """Return the profile of each container with enough data; a container whose program was not seen could not start."""
    return {
        (item := ContainerOf(unit.workload, unit.container)): _profile(item, behavior, unit, multicall)
        for _, units in units_by_workload(behavior)
        for unit in units
        if behavior.coverage[unit].kinds >= _NEEDED and any(fact.kind is FactKind.PROGRAM for fact in behavior.of(unit))
    }


def patches(behavior: Behavior, multicall: Collection[str]) -> list[Document]:
    """Parts of the workloads, which select profiles that the nodes have loaded."""
    found, documents = profiles(behavior, multicall), list[Document]()
    for workload, units in units_by_workload(behavior):
        items = [item for unit in units if (item := ContainerOf(unit.workload, unit.container)) in found]
        if items:
            hint = "The profiles must be loaded on each node: apparmor_parser --replace FILE, for each of these names:"
            comments = (hint, *(f"  {profile_name(item)}" for item in items))
            documents.append(patch(workload, [_use(item) for item in items], comments, file_name(workload)))
    return documents


def operator_objects(behavior: Behavior, multicall: Collection[str]) -> list[Document]:
    """Objects for the security-profiles-operator, which loads them on the nodes."""
    return [
        Document(
            {
                "apiVersion": "security-profiles-operator.x-k8s.io/v1alpha1",
                "kind": "AppArmorProfile",
                "metadata": {
                    "name": profile_name(item).replace("_", "-").lower(),
                    "namespace": item.workload.namespace,
                },
                "spec": {"policy": text},
            },
            name=item.file_name,
        )
        for item, text in profiles(behavior, multicall).items()
    ]


def profile_name(item: ContainerOf) -> str:
    """The name of a container's profile, without characters that have a meaning in profiles."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", item.file_name)


def _use(item: ContainerOf) -> ContainerPatch:
    chosen = {"type": "Localhost", "localhostProfile": profile_name(item)}
    return ContainerPatch(item.container, item.init, {"securityContext": {"appArmorProfile": chosen}})


def _profile(item: ContainerOf, behavior: Behavior, unit: Unit, multicall: Collection[str]) -> str:
    facts = list(behavior.of(unit))
    programs = {without_applet(fact.program, multicall) for fact in facts if fact.kind is FactKind.PROGRAM}
    interpreters = {interpreter(fact) for fact in facts} - {""}
    lines = _as_comments([f"What {unit} did. Not complete: it covers only what was seen.", *gaps(behavior, unit)])
    left_out = sorted({path for path in (*programs, *_opened(facts)) if not is_path(path)})
    lines += _as_comments(f"  cannot be written in a profile, so it is not allowed: {path!a}" for path in left_out)
    if any(not fact.evidence for fact in facts if fact.kind is FactKind.PROGRAM):
        lines.append("# The interpreters of some programs are not known: scripts need a rule for their interpreter.")
    lines += [
        "#include <tunables/global>",
        f"profile {profile_name(item)} flags=(attach_disconnected,mediate_deleted) {{",
    ]
    lines += [_USUAL.rstrip()]
    lines += [f"  capability {name.lower()}," for name in used_capabilities(facts)]
    lines += _networks(facts)
    lines += sorted({f'  "{glob(path)}" mrix,' for path in {*programs, *interpreters} if is_path(path)})
    lines += sorted(_files(facts))
    return "\n".join([*lines, "}"]) + "\n"


def _as_comments(texts: Iterable[str]) -> list[str]:
    return [f"# {text.strip()}" if text.isprintable() else f"# {text!a}" for text in texts]


def _networks(facts: Collection[Fact]) -> list[str]:
    used = {fact.value.rpartition("/")[2].lower() for fact in facts if fact.kind in (FactKind.CONNECT, FactKind.LISTEN)}
    used |= {"udp" for fact in facts if fact.kind is FactKind.RESOLVE}
    kinds = sorted({_PROTOCOLS[name] for name in used & _PROTOCOLS.keys()})
    return [f"  network {family} {kind}," for family in ("inet", "inet6") for kind in kinds]


def _opened(facts: Collection[Fact]) -> dict[str, bool]:
    """The paths that are opened, and whether for writing."""
    found: dict[str, bool] = {}
    for fact in facts:
        access, _, path = fact.value.partition(" ")
        if fact.kind is FactKind.OPEN and access in (READ, WRITE):
            found[path] = found.get(path, False) or access == WRITE
    return found


def _files(facts: Collection[Fact]) -> Iterator[str]:
    for path, is_written in _opened(facts).items():
        if not is_path(path):
            continue
        pattern = glob(path, is_written)
        access = "rw" if is_written else "mr" if _CODE.search(path) else "r"
        yield f'  "{pattern}" {access},'
        directory, _, name = path.rpartition("/")
        if name.endswith(".py") and not is_written:
            yield f'  "{glob(directory).removesuffix("{,/}")}/{_BYTECODE}" r,'
        if "/secrets/" in path and not is_written:
            # A volume's files are links to the files of its last update.
            yield f'  "{glob(directory).removesuffix("{,/}")}/..*/**" r,'
