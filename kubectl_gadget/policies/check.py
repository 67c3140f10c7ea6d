"""Facts about a policy before it runs, for `policy check`: what it fails to cover, names that are probably misspelt,
whether a node supports its hooks, what it costs, and how reliable it is.

This is knowledge about Linux; tests/bpf/test_policy_proof.py and test_policy_evasions.py verify it.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from kubectl_gadget.agents.per_node import Agents
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import AgentError, GadgetError, UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import NODES
from kubectl_gadget.linux.names import table_words
from kubectl_gadget.policies.compiler.attach import ways, with_mirrors
from kubectl_gadget.policies.compiler.policies import CompiledPolicies, target_name
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.language import lsm_function, lsm_hook, system_calls
from kubectl_gadget.policies.model import Hook, HookFilter, Note, Policy, Selector, Test
from kubectl_gadget.policies.read.hooks import without_notices
from kubectl_gadget.run.local_node import open_local
from kubectl_gadget.run.node import NodeStream, Open
from kubectl_gadget.wire.agent_messages import End, Hello, Hooks, TriedWays, WarningText, from_agent
from kubectl_gadget.wire.client_messages import LookUp
from kubectl_gadget.wire.frames import FrameDecoder, FrameType, encode
from kubectl_gadget.wire.policy_messages import Way
from kubectl_gadget.wording import did_you_mean, meant
from kubectl_gadget.yaml_files import own_data

# What a policy that denies fails to cover, and what would: reported by `policy check`, and when a policy is enforced.
#
# This looks at one policy at a time, so whatever another policy covers is still called a gap.

_ENFORCING = ("Override", "Sigkill", "NotifyEnforcer")
_EARLIER = "start its pods after the policy"
_MAPPINGS = (("mmap_file", "file_mprotect"), "access through memory that a file is mapped to")
NEW_HOOK = "file_truncate"
"""Since Linux 6.2; before, path_truncate is called for every truncation."""

_BESIDE: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "file_permission": (_MAPPINGS, (("path_truncate", NEW_HOOK), "truncation")),
    "file_open": ((("file_permission",), "what is done with a file that is open already"),),
    "path_truncate": (((NEW_HOOK,), "ftruncate() and O_TRUNC"),),
    NEW_HOOK: ((("path_truncate",), "truncate()"),),
    "path_unlink": ((("path_rename",), "renaming"),),
    "socket_connect": ((("socket_sendmsg",), "datagrams, and connections that sendto() begins with MSG_FASTOPEN"),),
    "bprm_check_security": ((("mmap_file",), "a program that the dynamic loader loads, not the kernel"),),
}
"""By the hook that denies: the hooks that are needed as well, and what is possible without them."""
_NEVER: Mapping[str, str] = {
    "file_permission": f"stores to an earlier mapping ({_EARLIER})",
    "mmap_file": f"stores to an earlier mapping ({_EARLIER})",
    "socket_connect": f"earlier connections ({_EARLIER})",
}
"""Accesses that no hook can deny, and what helps instead."""
_OTHER_NAMES = "the same file by another name, such as a hard link or a bind mount (compare by SameFile)"
_OTHER_NAMES_BELOW = (
    "the same files by other names, such as hard links or bind mounts (single files: compare by SameFile)"
)


def gaps(policy: Policy, has_new: bool | None = None) -> Iterator[Note]:
    """One note for each hook that denies something but not every way to do it. `has_new`: whether the kernels in
    question have NEW_HOOK; None: unknown, or not the same for all."""
    if policy.options.mode == "monitor":
        return
    denying = [(name, hook) for hook in policy.hooks if _hook_enforces(hook) and (name := _name(hook))]
    there = {name for name, _ in denying}
    for name, hook in denying:
        found = []
        for needed, what in _BESIDE.get(name, ()):
            missing = [one for one in needed if one not in there and (one != NEW_HOOK or has_new is not False)]
            if missing:
                found.append(f"{what} (add {_listed(missing, has_new)})")
        if name in _NEVER:
            found.append(_NEVER[name])
        if any(_goes_by_name(selector, "equal") for selector in hook.selectors):
            found.append(_OTHER_NAMES)
        elif any(_goes_by_name(selector, "prefix", "glob") for selector in hook.selectors):
            found.append(_OTHER_NAMES_BELOW)
        if found:
            yield Note(hook.place, f"{name} does not stop {', '.join(found)}")


def _listed(hooks: Sequence[str], has_new: bool | None) -> str:
    return " and ".join(f"from Linux 6.2 on {one}" if one == NEW_HOOK and not has_new else one for one in hooks)


def _goes_by_name(selector: Selector, *how: Test) -> bool:
    """Return True if it denies files by their paths, with one of these tests, and not by their identity as well."""
    filters = [
        one
        for one in selector.filters
        if one.subject.kind == "argument" and any(isinstance(value, str) and value[:1] == "/" for value in one.values)
    ]
    # NotPrefix denies everything elsewhere, under whatever name.
    tests = {one.test for one in filters if not (one.negated and one.test != "equal")}
    return _enforces(selector) and not tests.isdisjoint(how) and "same_file" not in tests


def _name(hook: Hook) -> str | None:
    return hook.target if hook.kind == "lsm" else lsm_hook(hook.target)


def _hook_enforces(hook: Hook) -> bool:
    return any(map(_enforces, hook.selectors))


def _enforces(selector: Selector) -> bool:
    return any(action.kind in _ENFORCING for action in selector.actions)


# Reports hooks whose names are in no known Linux version, or similar to a name of this machine's kernel: most likely
# misspelt.
#
# Names differ between kernels, and a newer one may have names that are unknown here. So this is reported only where no
# node was asked, and nothing is rejected; most kernel functions and tracepoints are checked only by similarity, since a
# function that is merely absent on this machine is not a mistake.


_LATEST = "6.18"
_LSM_HOOKS = frozenset(table_words("lsm_hooks"))
_SYMBOLS = Path("/proc/kallsyms")
_ALIKE = 0.85
"""Ratio of difflib: about one letter in seven differs."""


def unknown_names(hook: Hook) -> Iterable[Note]:
    """At most one note, which suggests a similar name."""
    subsystem, _, event = hook.target.rpartition("/")
    call = event.removeprefix("sys_enter_").removeprefix("sys_exit_")
    if hook.kind == "lsm" and hook.target not in _LSM_HOOKS:
        text = f"no Linux up to {_LATEST} has the LSM hook {hook.target}{nearest_lsm_hook(hook.target)}"
    elif subsystem == "syscalls" and call not in system_calls() | system_calls("i386"):
        text = f"no Linux up to {_LATEST} has the system call {call}{did_you_mean(call, system_calls())}"
    else:
        return
    yield Note(hook.place, text)


def nearest_lsm_hook(name: str) -> str:
    """`; did you mean …?`, or an empty text."""
    return "" if name in _LSM_HOOKS else did_you_mean(name, _LSM_HOOKS)


def misspelt(policy: Policy) -> Iterator[Note]:
    """Notes on the policy's functions that look like another one of this machine's kernel; nothing where it hides its
    symbols."""
    named = [hook for hook in policy.hooks if hook.kind in ("kprobe", "fentry")]
    named = [hook for hook in named if not (hook.syscall or hook.generated or hook.ignore_missing)]
    known = _own_symbols() if named else set()
    for hook in named:
        if hook.target not in known and (near := meant(hook.target, known, _ALIKE)):
            yield Note(hook.place, f"this machine's kernel has no function {hook.target}{near}")


def _own_symbols() -> set[str]:
    try:
        with _SYMBOLS.open(encoding="ascii", errors="replace") as file:
            return {line.split(maxsplit=3)[2] for line in file}
    except OSError:
        return set()


# Whether a node supports a policy's hooks, and by which way.
#
# The agent is asked with LOOK_UP of docs/protocol.md, tries the ways to each hook, and answers with HOOKS. None means
# "could not tell", never "no".


_MANY, _MANY_SINCE = "kprobe.multi", (5, 18)
_OTHER_NAME = "; it may be inlined, or have another name"


@dataclass(frozen=True)
class Judgement:
    """Return True if one node supports one hook."""

    works: bool | None
    way: str = ""
    """lsm, fentry, kprobe, tracepoint, uprobe …; missing; refused: the kernel does not load or attach the programs"""
    why: str = ""
    """the reason, when the node does not support it or it could not be determined"""


def question(policies: Iterable[Policy]) -> LookUp:
    """The LOOK_UP for these policies."""
    policies = list(policies)
    functions: set[str] = set()
    if any(NEW_HOOK in gap.text for policy in policies for gap in gaps(policy)):
        functions.add(lsm_function(NEW_HOOK))
    tracepoints: set[str] = set()
    patterns: set[str] = set()
    for hook in (hook for policy in policies for hook in policy.hooks):
        if hook.generated:
            patterns.add(hook.generated.pattern)
        elif hook.kind in ("kprobe", "fentry", "loader"):
            functions.add(_function(hook))
        elif hook.kind in ("tracepoint", "raw_tracepoint"):
            tracepoints.add(hook.target)
    return LookUp(
        functions=tuple(sorted(functions)),
        tracepoints=tuple(sorted(tracepoints)),
        patterns=tuple(sorted(patterns)),
        ways={_key(hook): found for policy in policies for hook in with_mirrors(policy) if (found := _ways(hook))},
    )


def have_new(answers: Iterable[Hooks]) -> bool | None:
    """Return True if the nodes with these answers have the hook that gaps() needs to know; None: they differ, or it is
    unknown."""
    function = lsm_function(NEW_HOOK)
    found = {one.exists if (one := answer.functions.get(function)) else None for answer in answers}
    return found.pop() if len(found) == 1 else None


def _key(hook: Hook) -> str:
    """The key for the ways to a hook, in the question and in the answer."""
    target = f"list:{hook.generated.name}" if hook.generated else hook.target
    abi = f"{hook.abi}/" if hook.abi else ""
    abi = f"mirror {abi}" if hook.mirrors else abi
    return f"{hook.kind} {abi}{target}{' returns' if hook.returns else ''}{' denies' if _denies(hook) else ''}"


def _ways(hook: Hook) -> tuple[Way, ...]:
    """The ways to try; empty for hooks that are looked up in another manner, or that the engine does not support."""
    if hook.probe or (hook.generated and not hook.syscall):
        return ()
    try:
        found = ways(hook, hook.returns, _denies(hook))
    except UsageError:
        return ()
    able = [way for way in found if way.denies] if _denies(hook) else found
    return tuple(way.message() for way in able)


def _tried(tried: TriedWays, hook: Hook, answer: Hooks) -> Judgement:
    """The result of loading and attaching."""
    if tried.way:
        return Judgement(True, tried.way.partition("/")[0].replace("_tracepoint", " tracepoint"))
    by_why: dict[str, list[str]] = {}
    for way, why in tried.refused.items():
        by_why.setdefault(why.partition("\n")[0], []).append(way.partition("/")[0])
    found = answer.functions.get(_function(hook))
    if hook.kind in ("kprobe", "fentry", "loader") and found is not None and not found.exists:
        if hook.ignore_missing:
            return Judgement(True, "left out", "the kernel does not have it, which ignore.callNotFound allows")
        whys = [f"the kernel has no function {hook.target}{_nearest(hook, answer) or _OTHER_NAME}"]
        whys += [f"{', '.join(names)}: {why}" for why, names in by_why.items() if "no function" not in why]
        return Judgement(False, "missing", "; ".join(whys))
    whys = [f"{', '.join(names)}: {why}" for why, names in by_why.items()]
    return Judgement(False, "refused", "; ".join(whys) + _nearest(hook, answer))


def _nearest(hook: Hook, answer: Hooks) -> str:
    """`; did you mean …?` for a name that the node does not have; else empty."""
    if hook.kind == "lsm":
        return nearest_lsm_hook(hook.target)
    return did_you_mean(hook.target, answer.near.get(hook.target, ()))


def judge(hook: Hook, hello: Hello, answer: Hooks) -> Judgement:
    """Return True if the node that sent `hello` and `answer` supports the hook."""
    if hook.kind in ("uprobe", "usdt"):
        able = hello.can.get("uprobe")
        whys = {True: "", False: "the kernel denies uprobes to the agent", None: "cannot be determined there"}
        return Judgement(able, "uprobe", whys[able])
    tried = answer.ways.get(_key(hook))
    if tried is not None:
        return _tried(tried, hook, answer)
    if hook.generated:
        return _generated(hook, hello, answer)
    return Judgement(None, "", "not tried, since this version does not support the hook")


def unseen_variants(policy: Policy, answer: Hooks) -> Iterator[tuple[str, str]]:
    """The kernel's functions for calls of 32-bit programs that the node cannot attach a second hook to, and why. Such a
    hook would be left out, and the policy would not hold for those calls."""
    mirrors = [hook for hook in with_mirrors(policy) if hook.mirrors]
    tried = [(hook, answer.ways[_key(hook)]) for hook in mirrors if _key(hook) in answer.ways]
    # At the raw tracepoint, the first hook sees all variants of the call.
    covered = {(hook.mirrors, hook.returns) for hook, one in tried if one.way and one.way.startswith("tp_btf/")}
    for hook, one in tried:
        if not (one.way or one.needless or (hook.mirrors, hook.returns) in covered):
            whys = [way + ": " + why.partition("\n")[0] for way, why in one.refused.items()]
            yield target_name(hook), "; ".join(whys)


def _function(hook: Hook) -> str:
    return f"{hook.abi}/{hook.target}" if hook.abi else hook.target


def _generated(hook: Hook, hello: Hello, answer: Hooks) -> Judgement:
    """Functions that match; whether the kernel can attach a program to all of them is known only after an attempt."""
    assert hook.generated is not None
    found = answer.generated.get(hook.generated.pattern)
    release = re.match(r"(\d+)\.(\d+)", hello.kernel)
    if found is None:
        return Judgement(
            False, "", answer.traceable_problem or "the functions that can be hooked cannot be listed there"
        )
    if not found.count:
        return Judgement(False, "", f"no function matches {hook.generated.pattern!r}")
    way = f"{_MANY} ×{found.count}"
    if release and tuple(map(int, release.groups())) < _MANY_SINCE:
        return Judgement(
            False, way, "attaching one program to many functions needs Linux 5.18; a list with `values` does not"
        )
    return Judgement(None, way, "only a run shows whether a program can be attached to many functions (CONFIG_FPROBE)")


def _denies(hook: Hook) -> bool:
    return any(action.kind == "Override" for selector in hook.selectors for action in selector.actions)


# What a policy costs and how reliable it is: where its hooks are, whether a thread can deceive them, how often they
# run.
#
# This is knowledge about Linux, not about one node. A filter on a system call's argument reads memory that the program
# can still change, whatever the filter is.


Often = Literal["all the time", "often", "now and then", "seldom", "unknown"]

_FETCHED = ("char_buf", "char_iovec")
_POINTERS = ("string", "char_buf", "char_iovec", "sockaddr", "sockaddr_un", "iov_iter", "bpf_attr")
"""Types that lie in the program's memory when they are arguments of a system call."""
_READ_BEFORE = "sys_enter_"
_BEFORE_COPYING = re.compile(r"(?:__do_sys_|__se_sys_|__sys_|ksys_|do_sys_)(\w+)")
"""Functions that run while a system call's arguments are still in the program's memory."""

_FACTS = own_data(Path(__file__).with_name("hook_facts.yaml"))
SAFE_HOOKS: Mapping[str, str] = {call: hook for hook, calls in _FACTS["safe"].items() for call in calls}
"""By system call: the LSM hook that sees what the kernel has copied."""

_OFTEN: Mapping[str, Often] = {name: often for often, names in _FACTS["often"].items() for name in names}
_RATE_AND_COST: Mapping[Often, tuple[str, str]] = {
    "all the time": ("10,000s a second and more", "1 to 10% CPU"),
    "often": ("1,000s a second", "0.1 to 1% CPU"),
    "now and then": ("10s to 100s a second", "< 0.1% CPU"),
    "seldom": ("hardly ever", "hardly any"),
    "unknown": ("not known", "not known"),
}
"""The cost is the rate times one microsecond, which is more than a call that matches nothing takes on a quiet machine,
however many policies there are: bench/policies.py."""


@dataclass(frozen=True)
class HookReport:
    """The report on one hook."""

    hook: Hook
    often: Often
    tables: int
    """lookup tables that the filters need: one for each combination of subject and test"""
    filtered_by: str
    """what the filters look at, cheapest first; empty: every call is an event"""

    @property
    def rate(self) -> str:
        """Roughly how often the hook runs on a busy node, in words."""
        return _RATE_AND_COST[self.often][0]

    @property
    def cost(self) -> str:
        """Roughly how much of one CPU it takes on such a node, without the events that are sent."""
        return _RATE_AND_COST[self.often][1]


@dataclass(frozen=True)
class Report:
    """The report on one policy."""

    policy: Policy
    hooks: tuple[HookReport, ...]
    warnings: tuple[Note, ...]
    unsupported: tuple[str, ...]
    """what the engine does not support in the policy, each with its place"""
    mirrors: tuple[str, ...] = ()
    """functions for system calls of 32-bit programs that get hooks in addition to those in the policy"""


def check_policy(policy: Policy, asked: bool = False, has_new: bool | None = None) -> Report:
    """Return the costs of a policy, and warnings for its author. `asked`: nodes were asked whether they have the hooks;
    `has_new`: as in gaps()."""
    warnings = [*policy.notes]
    checks = (_races, _untouched, _floods, _late_kills, _no_hashes, _requests, _dead_selectors)
    for hook in policy.hooks:
        warnings += (note for check in checks for note in check(hook))
        warnings += () if asked else unknown_names(hook)
    warnings += gaps(policy, has_new)
    taken = _taken(policy)
    mirrors = (target_name(hook) for hook in with_mirrors(replace(policy, hooks=taken)) if hook.mirrors)
    reports = tuple(map(_report, taken))
    warned = tuple(dict.fromkeys(warnings))
    return Report(policy, reports, warned, _unsupported(policy), tuple(dict.fromkeys(mirrors)))


def _taken(policy: Policy) -> tuple[Hook, ...]:
    """The hooks that programs are attached to: NotifyEnforcer is implemented at the calls themselves."""
    try:
        return without_notices(policy).hooks
    except UsageError:
        return policy.hooks


def _unsupported(policy: Policy) -> tuple[str, ...]:
    """The engine's errors. The engine stops at its first error, so it is asked about each hook alone."""
    found = []
    # Without hooks, only errors that concern the policy as a whole are found.
    for hooks in ((), *((hook,) for hook in policy.hooks)):
        for enforce in (False, True):
            try:
                CompiledPolicies([replace(policy, hooks=hooks)], CompilerOptions(enforce=enforce))
            except UsageError as error:
                found.append(f"{error}{f' (try: {error.remedy})' if error.remedy else ''}")
    return tuple(dict.fromkeys(found))


def hook_name(hook: Hook) -> str:
    """`kprobe/security_file_open`; `list:NAME` for targets that a node fills in."""
    target = f"list:{hook.generated.name}" if hook.generated else hook.target
    return f"{hook.kind}/{hook.abi + '/' if hook.abi else ''}{target}"


def system_call_of(hook: Hook) -> str | None:
    """The name, without `sys_`, of the system call that the hook is at, or whose arguments are passed to its function;
    empty for the tracepoint of all calls; else None."""
    if hook.syscall:
        return hook.target.removeprefix("sys_")
    if hook.kind in ("kprobe", "fentry"):
        match = _BEFORE_COPYING.fullmatch(hook.target)
        return match[1] if match and match[1] in system_calls() else None
    if hook.kind in ("tracepoint", "raw_tracepoint"):
        group, _, event = hook.target.partition("/")
        if group == "syscalls" and event.startswith(_READ_BEFORE):
            return event.removeprefix(_READ_BEFORE)
        if hook.target == "raw_syscalls/sys_enter":
            return ""
    return None


def _report(hook: Hook) -> HookReport:
    call = system_call_of(hook)
    often = _OFTEN.get(hook.target) or (_OFTEN.get(f"sys_{call}") if call else None)
    if hook.generated:
        often = "all the time"
    filters = [one for selector in hook.selectors for one in (*selector.filters, *selector.return_filters)]
    tables = {(one.subject.kind, one.subject.position, one.subject.name, one.test) for one in filters}
    kinds = dict.fromkeys(one.subject.kind.replace("_", " ") for one in sorted(filters, key=_price))
    unfiltered = not hook.selectors or any(not selector.filters for selector in hook.selectors)
    return HookReport(hook, often or "unknown", len(tables), "" if unfiltered else ", ".join(kinds))


def _price(one: HookFilter) -> int:
    """Relative cost: properties of the process are known, numbers are quick to read, paths have to be built."""
    if one.subject.kind not in ("argument", "data", "return"):
        return 0
    return 2 if one.test in ("prefix", "postfix", "glob", "substring", "substring_ignore_case") else 1


def _races(hook: Hook) -> Iterable[Note]:
    call = system_call_of(hook)
    if call is None:
        return
    safe = SAFE_HOOKS.get(call)
    remedy = f"; safe: lsmhooks {safe}, or {lsm_function(safe)}" if safe else "; use an LSM hook"
    what = hook.target if hook.kind in ("kprobe", "fentry") else f"sys_{call}" if call else "a system call"
    for argument in hook.arguments:
        if argument.type == "fd":
            text = f"another thread can replace the file descriptor of {what} after the check{remedy}"
        elif argument.type in _POINTERS and not argument.return_copy:
            text = f"{what} reads argument {argument.index} again after the check, when it may have changed{remedy}"
        else:
            continue
        yield Note(hook.place, text)


def _untouched(hook: Hook) -> Iterable[Note]:
    """Filters on data that the kernel has not yet fetched from the program's memory."""
    if system_call_of(hook) is None or hook.returns:
        return
    asked = {one.subject.position for each in hook.selectors for one in each.filters if one.subject.kind == "argument"}
    for position in sorted(asked):
        if position < len(hook.arguments) and hook.arguments[position].type in _FETCHED:
            index = hook.arguments[position].index
            text = (
                f"argument {index} matches nothing if the program has not touched its memory yet, as with a file"
                " that is only mapped; with `return: true` it is read at the end of the call"
            )
            yield Note(hook.place, text)


def _floods(hook: Hook) -> Iterable[Note]:
    report = _report(hook)
    if report.often == "all the time" and not report.filtered_by:
        yield Note(hook.place, f"{hook_name(hook)} runs {report.rate} on a busy node, and nothing filters it")


def _late_kills(hook: Hook) -> Iterable[Note]:
    for selector in hook.selectors:
        kinds = {action.kind for action in selector.actions}
        if not kinds & {"Sigkill", "Signal"} or kinds & {"Override", "NotifyEnforcer"}:
            continue
        is_asked = hook.kind == "lsm" or (not hook.returns and lsm_hook(hook.target) is not None)
        if is_asked and "Signal" not in kinds:
            continue  # the call of a process that is to be killed is denied first
        remedy = "add Override, argError -1" if is_asked else "few kernels can override this hook; safe: lsmhooks"
        text = f"a signal does not undo the call, which may be done before the process ends: {remedy}"
        yield Note(selector.place, text)


def _no_hashes(hook: Hook) -> Iterable[Note]:
    if hook.target == "file_open" and any(action.file_hash for one in hook.selectors for action in one.actions):
        text = "a file that is just being opened cannot be read, so imaHash has no hash here: hook file_post_open"
        yield Note(hook.place, text)


def _requests(hook: Hook) -> Iterable[Note]:
    """Actions that make agents use the network, which they need for nothing else."""
    for action in hook.all_actions:
        if action.kind in ("GetUrl", "DnsLookup"):
            what = f"requests {action.url}" if action.url else f"looks up {action.domain_name}"
            tls = ", and https needs TLS, which the default image does not have" if action.url[:6] == "https:" else ""
            often = "whoever causes the event triggers this, at most 10 times a second"
            yield Note(action.place, f"the agent {what}: its pod needs egress to there{tls}; {often}")


def _dead_selectors(hook: Hook) -> Iterable[Note]:
    for position, selector in enumerate(hook.selectors[:-1]):
        if not selector.filters and not selector.return_filters:
            yield Note(
                hook.selectors[position + 1].place,
                "is never reached: the selector before it has no filters, so it matches every call",
            )
            return


# Asks nodes which hooks they have: HELLO, LOOK_UP, HOOKS, and the end of the session.
#
# A node that does not answer must not hide the others' answers, so each has its own time limit and error.

_SECONDS = 30.0
"""Time limit for an answer, once the agent runs."""
_PARALLEL = 16


@dataclass(frozen=True)
class NodeHooks:
    """The answer of one node."""

    node: str
    hello: Hello = field(default_factory=Hello)
    hooks: Hooks = field(default_factory=Hooks)
    labels: Mapping[str, str] | None = None
    """None: this machine, which has no labels of a cluster"""
    problem: str = ""
    """why there is no answer"""


async def ask_local(asked: LookUp) -> list[NodeHooks]:
    """Returns this machine's answer. Raises AgentError when there is none."""
    hello, hooks = await _ask(open_local, asked)
    return [NodeHooks(hello.node, hello, hooks)]


async def ask_cluster(
    api: Api, asked: LookUp, names: Sequence[str], tell: Callable[[str, str], None], options: AgentOptions
) -> list[NodeHooks]:
    """Returns the answers of the nodes `names`, or of all. Agents are started where none is resident, then removed.

    `tell` is called with a node, "" for all, and a text about its agent.
    """
    async with Tasks(lambda error: tell("", f"agents may stop before the run ends: {error}")) as tasks:
        agents = Agents(api, options, tasks, tell, note=partial(tell, ""))
        try:
            return await _ask_nodes(api, agents, asked, names, options.start_timeout + _SECONDS)
        finally:
            for remaining in await agents.close():
                tell("", f"could not be removed: {remaining}")


async def _ask_nodes(api: Api, agents: Agents, asked: LookUp, names: Sequence[str], seconds: float) -> list[NodeHooks]:
    await agents.require([Access("list", NODES.plural)])
    nodes = (await api.find(NODES)).items
    labels = {node["metadata"]["name"]: node["metadata"].get("labels") or {} for node in nodes}
    for name in names:
        if name not in labels:
            raise UsageError(f"there is no node {name!r}", f"one of {', '.join(sorted(labels))}")
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(node: str) -> NodeHooks:
        async with slots:
            try:
                async with asyncio.timeout(seconds):
                    hello, hooks = await _ask(lambda: agents.open(node), asked)
            except TimeoutError:
                return NodeHooks(node, labels=labels[node], problem=f"no answer within {seconds:.0f} s")
            except GadgetError as error:
                return NodeHooks(node, labels=labels[node], problem=str(error))
            return NodeHooks(node, hello, hooks, labels[node])

    return list(await asyncio.gather(*map(one, sorted(names or labels))))


async def _ask(open_stream: Open, asked: LookUp) -> tuple[Hello, Hooks]:
    stream: NodeStream = await open_stream()
    hello = Hello()
    try:
        decoder = FrameDecoder()
        await stream.send(encode(FrameType.LOOK_UP, asked.to_bytes()))
        while data := await stream.receive():
            for frame in decoder.feed(data):
                match from_agent(frame):
                    case Hello() as hello:
                        pass
                    case Hooks() as hooks:
                        return hello, hooks
                    case WarningText(message=text) if "unknown type" in text:
                        raise AgentError("its agent is too old to answer", "kubectl gadget deploy, for the newest")
                    case End(error=error) if error is not None:
                        raise AgentError(f"{error.what}: {error.why}", error.try_ or None)
        raise AgentError(f"its agent ended: {stream.stderr_tail or 'it printed nothing'}")
    finally:
        await stream.close()
