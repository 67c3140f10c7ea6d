"""What a policy costs and how reliable it is: where its hooks are, whether a thread can deceive them, how often they
run.

This is knowledge about Linux, not about one node; `policies.report.node_support` judges what a node supports. The trap:
a filter on a system call's argument reads memory that the program can still change, whatever the filter is.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.attach.mirrors import with_mirrors
from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies, target_name
from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions
from kubectl_gadget.policies.language.linux_names import lsm_function, lsm_hook, system_calls
from kubectl_gadget.policies.model import Hook, HookFilter, Note, Policy
from kubectl_gadget.policies.read.enforcers import without_notices
from kubectl_gadget.policies.report.gaps import gaps
from kubectl_gadget.policies.report.unknown_names import unknown_names
from kubectl_gadget.yaml_files import own_data

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
    """What a policy costs, and warnings for its author. `asked`: nodes were asked whether they have the hooks;
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
