"""Commands of `policy`: `check`, `explain`, `generate` and `list`, which need no cluster; `install`, `installed` and
`uninstall` of policies that stay in force without this program.
"""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypedDict, cast

import typer

from kubectl_gadget.cli import values
from kubectl_gadget.cli.cluster import connect, own_namespace, refuse_others, say_own, wait_for
from kubectl_gadget.cli.flags import (
    SHOW,
    ClusterFlags,
    ImageFlags,
    Names,
    NoHeaders,
    ScopeFlags,
    Seconds,
    StartFlags,
    Switch,
    Text,
    Texts,
    TypedOnly,
    flag,
    format_flag,
    spelling,
)
from kubectl_gadget.cli.policy_flags import POLICIES, NamedPolicyFlags
from kubectl_gadget.cli.printing import print_json, print_table, say
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.output.registry import POLICY_LIST, REPORTS

if TYPE_CHECKING:
    from kubectl_gadget.kube.requests import Api
    from kubectl_gadget.policies.check import HookReport, Judgement, NodeHooks, Report
    from kubectl_gadget.policies.installation import Installed, NodePolicies, PolicyChange, StoredPolicy
    from kubectl_gadget.policies.model import Policy


# `check`: errors in policies, their hooks, and whether the nodes support these

_NODES = "Which nodes"


@dataclass(frozen=True)
class CheckFlags:
    """Flags for which policies are checked, by which nodes, and what is printed."""

    files: Annotated[
        Texts,
        flag(POLICIES, "--filename, -f FILE", "A file, a folder, or - for standard input; can be repeated"),
        TypedOnly.ACTION,
    ] = None
    builtin: Annotated[
        Names, flag(POLICIES, "--policy NAME", "A built-in policy; see policy list"), TypedOnly.ACTION
    ] = None
    output: Annotated[Text, format_flag(REPORTS)] = None
    no_headers: NoHeaders = None
    strict: Annotated[Switch, flag(SHOW, "--strict", "Fail on warnings, too")] = None
    nodes: Annotated[
        Texts, flag(_NODES, "--node NAME", "These nodes: --node a,b"), values.node_names, TypedOnly.SELECTION
    ] = None
    all_nodes: Annotated[Switch, flag(_NODES, "--all-nodes", "Every node of the cluster"), TypedOnly.ACTION] = None
    local: Annotated[Switch, flag(_NODES, "--local", "This machine"), TypedOnly.SELECTION] = None

    @property
    def asks_nodes(self) -> bool:
        return bool(self.nodes or self.all_nodes or self.local)

    def validate(self, image: ImageFlags, start: StartFlags) -> None:
        """Raises UsageError if there is no policy, or if flags of agents or nodes contradict each other."""
        if not self.files and not self.builtin:
            raise UsageError("no policy was given", "kubectl gadget policy check -f policy.yaml, or --policy NAME")
        if sum(map(bool, (self.nodes, self.all_nodes, self.local))) > 1:
            raise UsageError("--node, --all-nodes and --local cannot be used together")
        for given in () if self.nodes or self.all_nodes else (image, start):
            for name in given.typed():
                what = f"{spelling(type(given), name)} is only for agents on nodes"
                raise UsageError(what, "--node NAME, or --all-nodes")


def check(
    scope: ScopeFlags,
    cluster: ClusterFlags,
    image: ImageFlags,
    start: StartFlags,
    flags: CheckFlags,
) -> int:
    """Reads and checks policies, and asks the nodes. Hooks go to standard output, warnings to standard error. Unless
    nodes are named, no cluster is needed, so that it works in CI."""
    from kubectl_gadget.policies.check import check_policy, have_new, misspelt
    from kubectl_gadget.policies.read.policy_files import builtin_files, read_policies

    flags.validate(image, start)
    own = partial(own_namespace, scope, cluster, flags.local)
    policies = read_policies([*(flags.files or ()), *builtin_files(flags.builtin or ())], own)
    refuse_others(policies, scope.namespace)
    asked = flags.asks_nodes
    agents = cluster.agents(image, start)
    answers = _ask_hooks(cluster, agents, policies, flags.nodes or (), bool(flags.local)) if asked else []
    has_new = have_new(answer.hooks for answer in answers if not answer.problem)
    reports = [check_policy(policy, asked, has_new) for policy in policies]
    if flags.output == "json":
        print_json([_report_json(report, answers) for report in reports])
    else:
        _print_reports(reports, answers, not flags.no_headers)
    sys.stdout.flush()
    missing = _explain_reports(reports, answers)
    if not asked:
        for hint in (hint for policy in policies for hint in misspelt(policy)):
            say(f"{hint.place} {hint.text}")
        say("not checked whether nodes have these hooks (try: --all-nodes, --node NAME, or --local)")
    warned = any(report.warnings or _unseen(report, answers) for report in reports)
    return int(missing or bool(flags.strict and warned))


def _ask_hooks(
    cluster: ClusterFlags, agents: AgentOptions, policies: "Sequence[Policy]", nodes: Sequence[str], local: bool
) -> "list[NodeHooks]":
    from kubectl_gadget.policies.check import ask_cluster, ask_local, question

    asked = question(policies)
    if local:
        return wait_for(ask_local(asked))

    def tell(node: str, text: str) -> None:
        say(f"{node}: {text}" if node else text)

    return wait_for(ask_cluster(connect(cluster), asked, nodes, tell, agents))


def _print_reports(reports: "Sequence[Report]", answers: "Sequence[NodeHooks]", headers: bool) -> None:
    titles = ("POLICY", "HOOK", "FILTERED BY", "RUNS", "COST", *(answer.node.upper() for answer in answers))
    rows = [
        (
            *(report.policy.name, _name(hook), hook.filtered_by or "-", hook.rate, hook.cost),
            *(_cell(report, hook, answer) for answer in answers),
        )
        for report in reports
        for hook in report.hooks
    ]
    print_table(titles, rows, headers)


def _name(report: "HookReport") -> str:
    from kubectl_gadget.policies.check import hook_name

    return hook_name(report.hook)


def _cell(report: "Report", hook: "HookReport", answer: "NodeHooks") -> str:
    if answer.problem:
        return "?"
    if not _is_for(report, answer):
        return "not selected"
    judgement = _judge(hook, answer)
    return {True: judgement.way, False: judgement.way or "missing", None: f"{judgement.way or '-'}?"}[judgement.works]


def _judge(hook: "HookReport", answer: "NodeHooks") -> "Judgement":
    from kubectl_gadget.policies.check import judge

    return judge(hook.hook, answer.hello, answer.hooks)


def _is_for(report: "Report", answer: "NodeHooks") -> bool:
    from kubectl_gadget.policies.model import is_for_node

    return answer.labels is None or is_for_node(report.policy.scope, answer.labels)


def _explain_reports(reports: "Sequence[Report]", answers: "Sequence[NodeHooks]") -> bool:
    """Reports warnings. Returns whether a policy cannot run, or a node lacks a hook or did not answer."""
    say_own(report.policy for report in reports)
    for report in reports:
        if report.mirrors:
            said = "on x86-64, calls of 32-bit programs and by int 0x80 are also traced, as"
            say(f"{report.policy.name}: {said} {', '.join(report.mirrors)}")
        for warning in report.warnings:
            say(f"warning: {warning.place} {warning.text}")
        for node, function, why in _unseen(report, answers):
            said = f"calls of 32-bit programs to {function} are not traced there"
            say(f"warning: {node}: {report.policy.name}: {said} ({why})")
    failed = any(report.unsupported for report in reports)
    for report in reports:
        for text in report.unsupported:
            say(f"not supported: {text}")
    for answer in answers:
        if answer.problem:
            failed = True
            say(f"{answer.node}: {answer.problem}")
            continue
        hooks_of: dict[str, list[str]] = {}
        for report in reports:
            for hook in report.hooks if _is_for(report, answer) else ():
                judgement = _judge(hook, answer)
                failed |= judgement.works is False
                if judgement.why:
                    hooks_of.setdefault(judgement.why, []).append(_name(hook))
        for why, hooks in hooks_of.items():
            say(f"{answer.node}: {', '.join(dict.fromkeys(hooks))}: {why}")
    return failed


def _unseen(report: "Report", answers: "Sequence[NodeHooks]") -> "list[tuple[str, str, str]]":
    """Node, function and reason for each second hook that a node cannot attach."""
    from kubectl_gadget.policies.check import unseen_variants

    asked = [answer for answer in answers if not answer.problem and _is_for(report, answer)]
    return [(answer.node, *found) for answer in asked for found in unseen_variants(report.policy, answer.hooks)]


def _report_json(report: "Report", answers: "Sequence[NodeHooks]") -> dict[str, object]:
    return {
        "policy": report.policy.name,
        "namespace": report.policy.namespace,
        "file": report.policy.place.file,
        "hooks": [
            {
                "hook": _name(hook),
                "line": hook.hook.place.line,
                "filtered_by": hook.filtered_by,
                "runs": hook.rate,
                "cost": hook.cost,
                "tables": hook.tables,
                "nodes": [
                    {"node": answer.node, **(asdict(_judge(hook, answer)) if not answer.problem else {})}
                    for answer in answers
                    if _is_for(report, answer)
                ],
            }
            for hook in report.hooks
        ],
        "calls_of_32_bit_programs": list(report.mirrors),
        "not_traced_calls_of_32_bit_programs": [
            {"node": node, "function": function, "why": why} for node, function, why in _unseen(report, answers)
        ],
        "warnings": [{**asdict(warning.place), "text": warning.text} for warning in report.warnings],
        "unsupported": list(report.unsupported),
        "problems": [{"node": answer.node, "problem": answer.problem} for answer in answers if answer.problem],
    }


# `explain FIELD`: a field of a policy

Fields = Annotated[tuple[str, ...], typer.Argument(metavar="FIELD")]
Recursive = Annotated[Switch, flag(SHOW, "--recursive", "List all fields below it by name")]
_WIDEST = 110


def explain(scope: ScopeFlags, cluster: ClusterFlags, fields: Fields = (), recursive: Recursive = None) -> int:
    from kubectl_gadget.policies.writing import explain_field

    if len(fields) > 1:
        raise UsageError(f"one field at a time, not {' '.join(fields)}", f"one with dots: {'.'.join(fields)}")
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    sys.stdout.write(explain_field(fields[0] if fields else "", width, bool(recursive)))
    return 0


# `generate KIND`: a policy to be edited and applied

_KINDS = ("empty", "all-syscalls", "ftrace-list", "uprobes", "usdts")
Kind = Annotated[tuple[str, ...], typer.Argument(metavar="KIND")]


@dataclass(frozen=True)
class GenerateFlags:
    """Flags for the contents of the policy."""

    name: Annotated[
        Text, flag(SHOW, "--name NAME", "The policy's name (default: the kind)"), values.object_name, TypedOnly.ACTION
    ] = None
    binary: Annotated[Text, flag(SHOW, "--binary PATH", "uprobes, usdts: the program or library"), TypedOnly.ACTION] = (
        None
    )
    match_binary: Annotated[
        Names, flag(SHOW, "--match-binary PATH", "all-syscalls, ftrace-list: only of this program"), TypedOnly.ACTION
    ] = None
    regex: Annotated[Text, flag(SHOW, "--regex, -r REGEX", "ftrace-list: which functions"), TypedOnly.ACTION] = None

    def validate(self, kind: str) -> None:
        """Raises UsageError if the kind needs a flag that was not given."""
        needs = {
            "ftrace-list": (self.regex, "--regex '^vfs_'"),
            **dict.fromkeys(("uprobes", "usdts"), (self.binary, "--binary /usr/bin/app")),
        }
        given, example = needs.get(kind, ("", ""))
        if given is None:
            flag = example.partition(" ")[0]
            raise UsageError(f"{kind} needs {flag}", f"kubectl gadget policy generate {kind} {example}")


def generate(scope: ScopeFlags, cluster: ClusterFlags, flags: GenerateFlags, kinds: Kind = ()) -> int:
    from kubectl_gadget.policies import writing as make

    if len(kinds) != 1 or kinds[0] not in _KINDS:
        what = f"unknown kind {' '.join(kinds)!r};" if kinds else "no kind was given;"
        raise UsageError(f"{what} expected one of {', '.join(_KINDS)}", f"kubectl gadget policy generate {_KINDS[0]}")
    (kind,) = kinds
    flags.validate(kind)
    binary, regex, programs = flags.binary or "", flags.regex or "", flags.match_binary or ()
    makers: Mapping[str, Callable[[], dict[str, object]]] = {
        "empty": make.empty,
        "all-syscalls": lambda: make.all_system_calls(programs),
        "ftrace-list": lambda: make.ftrace_list(regex, programs),
        "uprobes": lambda: make.uprobes(binary),
        "usdts": lambda: make.usdts(binary),
    }
    sys.stdout.write(make.policy_text(flags.name or kind, makers[kind]()))
    return 0


# `list`: the policies that come with this program

ListFormat = Annotated[Text, format_flag(POLICY_LIST)]


def list_policies(
    scope: ScopeFlags, cluster: ClusterFlags, output: ListFormat = None, no_headers: NoHeaders = None
) -> int:
    from kubectl_gadget.policies.check import hook_name
    from kubectl_gadget.policies.read.policy_files import read_builtin_policies

    found = read_builtin_policies()
    rows = [(each.name, ", ".join(map(hook_name, each.policy.hooks)), each.summary) for each in found]
    if output == "json":
        keys = ("name", "hooks", "description")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    elif output == "yaml":
        sys.stdout.write("---\n".join(each.path.read_text(encoding="utf-8") for each in found))
    elif output == "name":
        sys.stdout.writelines(f"{each.name}\n" for each in found)
    else:
        table = [(each.name, str(len(each.policy.hooks)), each.summary) for each in found]
        print_table(("POLICY", "HOOKS", "SHOWS"), table, not no_headers)
    return 0


# `install`, `installed` and `uninstall`. A policy that denies stays in force, so it is installed only with --enforce

_HOW = "How"
_WAIT_SECONDS = 120.0
InstalledFormat = Annotated[Text, format_flag(REPORTS)]
PolicyNames = Annotated[tuple[str, ...], typer.Argument(metavar="NAME")]
All = Annotated[Switch, flag(_HOW, "--all", "All installed policies"), TypedOnly.ACTION]


@dataclass(frozen=True)
class InstallFlags:
    """Flags for what may be installed."""

    enforce: Annotated[
        Switch, flag(_HOW, "--enforce", "Allow policies that deny, kill or signal"), TypedOnly.RIGHTS
    ] = None
    allow_weaker: Annotated[
        Switch,
        flag(_HOW, "--allow-weaker", "For all installed policies: accept nodes that can only send signals"),
        TypedOnly.RIGHTS,
    ] = None


@dataclass(frozen=True)
class WaitFlags:
    """Flags for how long a change waits for the nodes."""

    wait: Annotated[Switch, flag(_HOW, "--wait", "Wait until all nodes are up to date (default: true)")] = None
    timeout: Annotated[Seconds, flag(_HOW, "--timeout TIME", "How long to wait (default: 2m)")] = None

    def validate(self) -> None:
        """Raises UsageError if there is a time limit, and nothing waits."""
        if self.wait is False and self.timeout is not None:
            raise UsageError("--timeout and --wait=false cannot be used together")

    @property
    def seconds(self) -> float:
        return 0.0 if self.wait is False else self.timeout or _WAIT_SECONDS


class ReportedPolicy(TypedDict, total=False):
    """A node's report on one installed policy; unknown members are passed on unchanged."""

    state: str
    hooks: list[dict[str, str]]
    events: int


def install(
    policies: NamedPolicyFlags,
    scope: ScopeFlags,
    cluster: ClusterFlags,
    flags: InstallFlags,
    waiting: WaitFlags,
) -> int:
    """Checks and installs policies, and waits for the nodes."""
    from kubectl_gadget.policies.installation import PolicyChange, policies_to_store, refuse_enforcing
    from kubectl_gadget.policies.read.policy_files import builtin_files, sources

    policies.validate("kubectl gadget policy install -f policy.yaml, or --policy NAME")
    waiting.validate()
    names = [*(policies.files or ()), *builtin_files(policies.builtin or ())]
    api = connect(cluster)
    found = policies_to_store(sources(names), own_namespace(scope, cluster))
    refuse_others((one.policy for one in found), scope.namespace)
    if not flags.enforce:
        refuse_enforcing(found)
    wanted = PolicyChange(found, allow_weaker=flags.allow_weaker)
    return wait_for(_change(api, cluster.agents(), wanted, f"installed {_titles(found)}", waiting.seconds))


def uninstall(
    scope: ScopeFlags,
    cluster: ClusterFlags,
    waiting: WaitFlags,
    names: PolicyNames = (),
    all: All = None,
) -> int:
    if bool(names) == bool(all):
        what = "--all and names cannot be used together" if names else "no policy was given"
        raise UsageError(what, "kubectl gadget policy uninstall NAME, or --all")
    waiting.validate()
    return wait_for(_uninstall(connect(cluster), cluster.agents(), names, waiting.seconds))


def installed(
    scope: ScopeFlags, cluster: ClusterFlags, output: InstalledFormat = None, no_headers: NoHeaders = None
) -> int:
    there, found, others = wait_for(_ask_installed(connect(cluster), cluster.agents()))
    if output == "json":
        print_json(_installed_json(there, found))
        sys.stdout.flush()
    else:
        _print_installed(there, found, not no_headers)
    if not there.policies:
        say("no policies are installed")
    if not any(node.has_agent for node in found):
        say("no agents are deployed; try: kubectl gadget deploy")
    for line in others:
        say(line)
    return int(_explain_nodes(there, found))


async def _ask_installed(api: "Api", agents: AgentOptions) -> "tuple[Installed, list[NodePolicies], list[str]]":
    from kubectl_gadget.policies.installation import nodes, read, reports_of_others

    found = await nodes(api, agents)
    return await read(api, agents), found, await reports_of_others(api, agents, found)


async def _uninstall(api: "Api", agents: AgentOptions, names: Sequence[str], wait_seconds: float) -> int:
    from kubectl_gadget.policies.installation import PolicyChange, read

    there = (await read(api, agents)).policies
    by_title = {one.title: one for one in there}
    if not there or any(name not in by_title for name in names):
        for line in (await _ask_installed(api, agents))[2]:
            say(line)
    for name in names:
        if name not in by_title:
            raise UsageError(f"no policy {name!r} is installed", f"one of {', '.join(by_title)}" if by_title else None)
    gone = [by_title[name] for name in names] if names else list(there)
    if not gone:
        say("no policies are installed")
        return 0
    wanted = PolicyChange(remove=[one.key for one in gone])
    return await _change(api, agents, wanted, f"uninstalled {_titles(gone)}", wait_seconds)


async def _change(api: "Api", agents: AgentOptions, wanted: "PolicyChange", done: str, wait_seconds: float) -> int:
    from kubectl_gadget.policies.installation import change, lacks_priority, nudge, wait

    there = await change(api, agents, wanted)
    say(done)
    if any(one.enforces for one in wanted.add) and await lacks_priority(api, agents):
        say(
            "on a full node, other pods may preempt the agent, and then nothing guards the policy there;"
            " kubectl gadget deploy --enforcing gives agents the priority system-node-critical"
        )
    if there.allow_weaker:
        say("nodes that cannot deny calls may send signals (--allow-weaker); this holds for all installed policies")
    if not await nudge(api, agents, there.digest):
        say("kubelets were not notified, which needs the right to patch pods; they see the change within two minutes")
    if not wait_seconds:
        return 0
    found = await wait(api, agents, there.digest, wait_seconds, say)
    return int(_explain_nodes(there, found))


def _titles(policies: "Sequence[StoredPolicy]") -> str:
    return ", ".join(one.title for one in policies)


def _print_installed(there: "Installed", found: "Sequence[NodePolicies]", headers: bool) -> None:
    rows = []
    for one in there.policies:
        for node in found:
            state = _state_of(there, node, one)
            methods = ",".join(dict.fromkeys(hook["method"] for hook in state.get("hooks", ())))
            hooks = ",".join(hook["by"] for hook in state.get("hooks", ()))
            row = (one.title, node.node, state["state"], methods.replace(" ", "-") or "-", hooks or "-")
            rows.append((*row, str(state.get("events", "-"))))
    print_table(("POLICY", "NODE", "STATE", "METHOD", "HOOKS", "EVENTS"), rows, headers)
    sys.stdout.flush()


def _state_of(there: "Installed", node: "NodePolicies", one: "StoredPolicy") -> ReportedPolicy:
    """The state reported by the node; `pending` while it has another version of the ConfigMap, `unknown` without a
    report."""
    if not node.has_agent:
        return {"state": "no-agent"}
    if node.state is None:
        return {"state": "unknown" if node.problem else "pending"}
    for state in node.state.policies:
        if (state.name, state.namespace) == (one.policy.name, one.policy.namespace):
            stale = node.digest != there.digest
            shown = f"{state.state},pending" if stale else state.state
            return cast(ReportedPolicy, {**state.to_json(), "state": shown})
    return {"state": "pending"}


def _explain_nodes(there: "Installed", found: "Sequence[NodePolicies]") -> bool:
    """Reports policies that are not in force. Returns whether there are any."""
    failed = False
    for node in found:
        if not node.has_agent:
            say(f"{node.node} has no resident agent, so nothing is in force there")
            continue
        if node.problem:
            failed = True
            say(f"{node.node}: {node.problem}")
        if node.digest != there.digest:
            failed = True
            say(f"{node.node} has not received the change yet")
            continue
        for state in node.state.policies if node.state else ():
            if state.state != "enabled":
                failed = True
                say(f"{node.node}: policy {state.name}: {state.state}: {state.error}")
        if node.state and node.state.not_pinned:
            say(f"{node.node}: not guarded while its agent is restarted: {node.state.not_pinned}")
    return failed


def _installed_json(there: "Installed", found: "Sequence[NodePolicies]") -> list[dict[str, object]]:
    return [
        {
            "policy": one.policy.name,
            "namespace": one.policy.namespace,
            "nodes": [{"node": node.node, "problem": node.problem, **_state_of(there, node, one)} for node in found],
        }
        for one in there.policies
    ]
