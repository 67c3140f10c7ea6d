"""`advise seccomp`: a profile for each container, from the system calls that it began.

Profiles have the format of Docker and of the OCI runtime specification (config-linux.md, Seccomp). Calls that the
container's present profile rejects are missing: the kernel rejects them before its tracepoint.

The trap: a profile also applies to the runtime, from when the runtime loads it until the container's program begins. So
every profile includes the calls that runc needs then (measured with runc 1.1 built with Go 1.24, and read from its
source).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kubectl_gadget.advise.baselines import gaps
from kubectl_gadget.advise.documents import ContainerPatch, Document, patch
from kubectl_gadget.advise.uses import (
    ContainerOf,
    Recipe,
    SeenUses,
    Use,
    UseKind,
    by_container,
    by_workload,
    replicas,
    start_note,
    start_unseen,
)
from kubectl_gadget.behavior.facts import Behavior, FactKind
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.wording import count

KIND = UseKind(("namespace", "pod", "container", "architecture", "syscall"), ("count",))
ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_RUNTIME_TEXT = (
    # To drop privileges, when the profile was loaded before (allowPrivilegeEscalation is not false) …
    "capget capset chdir prctl setgid setgroups setuid getcwd "
    # … to find the program, wait for `start`, and close descriptors …
    "close close_range execve faccessat faccessat2 fcntl fstat fstatfs getdents64 getppid newfstatat openat pipe2 "
    "prlimit64 read readlinkat statfs write "
    # … and what Go's runtime calls by itself at any time.
    "brk epoll_create1 epoll_ctl epoll_pwait eventfd2 exit exit_group futex getpid getrandom gettid madvise mmap "
    "mprotect munmap nanosleep restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_yield "
    "set_robust_list sigaltstack tgkill"
)
RUNTIME = frozenset(_RUNTIME_TEXT.split())
"""The calls that runc makes after it may have loaded the profile."""
_NEW_NAMESPACES = 0x7E020000
"""All CLONE_NEW… flags; creating a thread uses none of them."""
_ENOSYS = 38
_OTHER_ARCHITECTURES = {"i386": "SCMP_ARCH_X86", "x32": "SCMP_ARCH_X32", "arm32": "SCMP_ARCH_ARM"}
"""By the prefix of calls made by 32-bit programs, or by 64-bit programs with int 0x80: `i386/open`."""


def uses_of(row: Mapping[str, object]) -> Iterator[Use]:
    """The uses in a row of `top syscalls --begun`; `architecture` is the node's."""
    if row.get("container"):
        yield {name: row[name] for name in ("namespace", "pod", "container", "architecture", "syscall", "count")}


RECIPE = Recipe("seccomp", KIND, uses_of, (("top_syscalls", {"begun": True}),))


def profile(uses: Iterable[Use]) -> Object:
    """The profile that allows the calls in these uses, and those that the runtime needs."""
    uses = list(uses)
    seen = {name for use in uses if not (name := _name(use)).isdigit()}
    calls: list[Object] = [{"names": sorted(seen | RUNTIME), "action": "SCMP_ACT_ALLOW"}]
    if "clone" not in seen:
        threads = {"index": 0, "value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        calls.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [threads]})
    if "clone3" not in seen:
        # A filter cannot read its flags; after ENOSYS, libraries use clone.
        calls.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    own = {ARCHITECTURES[use["architecture"]] for use in uses if use["architecture"] in ARCHITECTURES}
    architectures = sorted(own | {_OTHER_ARCHITECTURES[kind] for use in uses if (kind := _other(use))})
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures, "syscalls": calls}


def merge(new: Object, earlier: Mapping[str, object]) -> Object:
    """`earlier` with everything that `new` allows in addition; conditions and actions of `earlier` stay."""
    merged: Object = json.loads(json.dumps(earlier))
    rules = merged.setdefault("syscalls", [])
    free = [rule for rule in rules if rule.get("action") == "SCMP_ACT_ALLOW" and not rule.get("args")]
    known = {name for rule in free for name in _names(rule)}
    wanted = set(new["syscalls"][0]["names"])
    # An earlier rule must not reject, or restrict, a call that is allowed now.
    for rule in list(rules):
        if rule in free:
            continue
        if left := [name for name in _names(rule) if name not in wanted]:
            rule["names"] = left
            rule.pop("name", None)
        else:
            rules.remove(rule)
    mentioned = {name for rule in rules for name in _names(rule)}
    if missing := sorted(wanted - known):
        rules.append({"names": missing, "action": "SCMP_ACT_ALLOW"})
    rules += [rule for rule in new["syscalls"][1:] if not mentioned.intersection(rule["names"])]
    if "archMap" not in merged:
        merged["architectures"] = sorted({*(merged.get("architectures") or ()), *new["architectures"]})
    return merged


def read_profile(text: str, name: str) -> dict[str, object]:
    """An earlier profile. Raises UsageError when the text is not a profile."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}", "a profile that --format profile printed") from None
    if not isinstance(found, dict) or "defaultAction" not in found:
        raise UsageError(f"{name} is not a seccomp profile: it has no defaultAction")
    if found["defaultAction"] == "SCMP_ACT_ALLOW":
        raise UsageError(f"{name} allows all calls except those it lists, so it cannot be extended")
    return found


def advise(recording: SeenUses, format: str, earlier: Mapping[str, object] | None = None) -> list[Document]:
    """One profile for each container of each workload, or one patch for each workload."""
    found = by_container(recording.uses, recording.inventory)
    unseen = start_unseen(recording)
    comments = {item: (*_comments(item, uses), *start_note(item, unseen)) for item, uses in found.items()}
    return documents({item: _merged(profile(uses), earlier) for item, uses in found.items()}, comments, format)


def documents(
    profiles: Mapping[ContainerOf, Object], comments: Mapping[ContainerOf, Sequence[str]], format: str
) -> list[Document]:
    if format == "patch":
        return [
            patch(
                workload,
                [_set_profile(item) for item in items],
                (*(line for item in items for line in comments[item]), *_files(items)),
                items[0].file_name,
            )
            for workload, items in by_workload(profiles).items()
        ]
    items = profiles.items()
    if format == "SeccompProfile":
        return [Document(_operator_object(item, found), tuple(comments[item]), item.file_name) for item, found in items]
    return [Document(found, tuple(comments[item]), item.file_name) for item, found in items]


def warnings(recording: SeenUses) -> Iterator[str]:
    """Yield what a profile cannot express, or allows beyond the node's own architecture."""
    yield from warnings_of(by_container(recording.uses, recording.inventory))


def warnings_of(found: Mapping[ContainerOf, Sequence[Use]]) -> Iterator[str]:
    for item, uses in found.items():
        if others := sorted({_OTHER_ARCHITECTURES[kind] for use in uses if (kind := _other(use))}):
            why = "32-bit programs, or 64-bit ones by int 0x80; if that is not intended, remove it"
            yield f"{item}: the profile allows {', '.join(others)}, since there were calls of {why}"
        if unknown := sorted({use["syscall"] for use in uses if _name(use).isdigit()}):
            yield f"{item} makes system calls with unknown names, which the profile omits: {', '.join(unknown)}"


def _other(use: Use) -> str:
    """`i386` for i386/open; empty for a call of a 64-bit program."""
    kind, slash, _ = use["syscall"].partition("/")
    return kind if slash else ""


def _name(use: Use) -> str:
    """The call's name without the architecture: in a profile, names apply to all listed architectures."""
    return str(use["syscall"]).rpartition("/")[2]


def _merged(new: dict[str, object], earlier: Mapping[str, object] | None) -> dict[str, object]:
    return new if earlier is None else merge(new, earlier)


def _names(rule: Mapping[str, Any]) -> Sequence[str]:
    return rule.get("names") or ([rule["name"]] if "name" in rule else [])


def _comments(item: ContainerOf, uses: Sequence[Use]) -> tuple[str, ...]:
    seen = len({use["syscall"] for use in uses})
    pods = replicas(uses)
    return (f"{item}: {seen} system calls seen, in {count(pods, 'pod')}; the others are for runc.",)


def _set_profile(item: ContainerOf) -> ContainerPatch:
    fields = {"type": "Localhost", "localhostProfile": f"profiles/{item.file_name}.json"}
    return ContainerPatch(item.container, item.init, {"securityContext": {"seccompProfile": fields}})


def _files(items: Sequence[ContainerOf]) -> Iterator[str]:
    yield "The profiles must be on each node, under /var/lib/kubelet/seccomp/ (--format profile --directory DIR):"
    yield from (f"  profiles/{item.file_name}.json" for item in items)


def _operator_object(item: ContainerOf, found: Mapping[str, object]) -> dict[str, object]:
    """An object for the security-profiles-operator, which copies it to the nodes; its CRD has no defaultErrnoRet."""
    return {
        "apiVersion": "security-profiles-operator.x-k8s.io/v1beta1",
        "kind": "SeccompProfile",
        "metadata": {
            "name": "-".join((item.workload.name, item.container)).lower(),
            "namespace": item.workload.namespace,
        },
        "spec": {key: value for key, value in found.items() if key in ("defaultAction", "architectures", "syscalls")},
    }


# Seccomp profiles from facts: the system calls that the programs of a container made.


def profiles(
    behavior: Behavior, format: str, earlier: Mapping[str, object] | None = None
) -> tuple[list[Document], list[str]]:
    """The profiles in a format of `advise seccomp`, and notes for the user."""
    uses: dict[ContainerOf, list[Use]] = {}
    comments: dict[ContainerOf, list[str]] = {}
    for unit in sorted(behavior.coverage, key=str):
        if FactKind.SYSCALL in behavior.coverage[unit].kinds:
            item = ContainerOf(unit.workload, unit.container)
            calls = sorted({fact.value for fact in behavior.of(unit) if fact.kind is FactKind.SYSCALL})
            # Names are the same on all architectures, and a profile without architectures is for the node's.
            uses[item] = [{"architecture": "", "syscall": call} for call in calls]
            said = f"{unit}: {len(calls)} system calls seen; the others are for runc."
            comments[item] = [said, *gaps(behavior, unit)]
    made = {item: profile(found) for item, found in uses.items() if found}
    if earlier is not None:
        made = {item: merge(found, earlier) for item, found in made.items()}
    return documents(made, comments, format), list(warnings_of(uses))
