"""`kubectl gadget policy check -f`: errors in policies, their hooks, and whether the nodes support these.

Hooks go to standard output, warnings to standard error. The trap: unless nodes are named, no cluster is needed, so that
it works in CI.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.flags.connect import connect, say, wait_for
from kubectl_gadget.cli.flags.flag_declaration import (
    SHOW,
    Names,
    Switch,
    Text,
    Texts,
    TypedOnly,
    flag,
    format_flag,
    spelling,
)
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ImageFlags, NoHeaders, ScopeFlags, StartFlags
from kubectl_gadget.cli.flags.own_namespace import own_namespace, refuse_others, say_own
from kubectl_gadget.cli.flags.policy_flags import POLICIES
from kubectl_gadget.cli.help.printed_tables import print_json, print_table
from kubectl_gadget.cli.values import object_names
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.output.registry import REPORTS

if TYPE_CHECKING:
    from kubectl_gadget.policies.model import Policy
    from kubectl_gadget.policies.report.check import HookReport, Judgement, Report
    from kubectl_gadget.run.nodes.hook_lookup import NodeHooks

_NODES = "Which nodes"

Files = Annotated[
    Texts,
    flag(POLICIES, "--filename, -f FILE", "A file, a folder, or - for standard input; can be repeated"),
    TypedOnly.ACTION,
]
Builtin = Annotated[Names, flag(POLICIES, "--policy NAME", "A built-in policy; see policy list"), TypedOnly.ACTION]
Format = Annotated[Text, format_flag(REPORTS)]
Strict = Annotated[Switch, flag(SHOW, "--strict", "Fail on warnings, too")]
Nodes = Annotated[
    Texts, flag(_NODES, "--node NAME", "These nodes: --node a,b"), object_names.node_names, TypedOnly.SELECTION
]
AllNodes = Annotated[Switch, flag(_NODES, "--all-nodes", "Every node of the cluster"), TypedOnly.ACTION]
Local = Annotated[Switch, flag(_NODES, "--local", "This machine"), TypedOnly.SELECTION]


def check(
    scope: ScopeFlags,
    cluster: ClusterFlags,
    image: ImageFlags,
    start: StartFlags,
    files: Files = None,
    builtin: Builtin = None,
    output: Format = None,
    no_headers: NoHeaders = None,
    strict: Strict = None,
    nodes: Nodes = None,
    all_nodes: AllNodes = None,
    local: Local = None,
) -> int:
    """Reads and checks policies, and asks the nodes."""
    from kubectl_gadget.policies.builtin import builtin_files
    from kubectl_gadget.policies.read.policy_files import read_policies
    from kubectl_gadget.policies.report.check import check_policy, have_new, misspelt

    if not files and not builtin:
        raise UsageError("no policy was given", "kubectl gadget policy check -f policy.yaml, or --policy NAME")
    if sum(map(bool, (nodes, all_nodes, local))) > 1:
        raise UsageError("--node, --all-nodes and --local cannot be used together")
    for given in () if nodes or all_nodes else (image, start):
        for name in given.typed():
            what = f"{spelling(type(given), name)} is only for agents on nodes"
            raise UsageError(what, "--node NAME, or --all-nodes")
    own = partial(own_namespace, scope, cluster, local)
    policies = read_policies([*(files or ()), *builtin_files(builtin or ())], own)
    refuse_others(policies, scope.namespace)
    asked = bool(nodes or all_nodes or local)
    agents = cluster.agents(image, start)
    answers = _ask(cluster, agents, policies, nodes or (), bool(local)) if asked else []
    has_new = have_new(answer.hooks for answer in answers if not answer.problem)
    reports = [check_policy(policy, asked, has_new) for policy in policies]
    if output == "json":
        print_json([_as_json(report, answers) for report in reports])
    else:
        _print(reports, answers, not no_headers)
    sys.stdout.flush()
    missing = _explain(reports, answers)
    if not asked:
        for hint in (hint for policy in policies for hint in misspelt(policy)):
            say(f"{hint.place} {hint.text}")
        say("not checked whether nodes have these hooks (try: --all-nodes, --node NAME, or --local)")
    warned = any(report.warnings or _unseen(report, answers) for report in reports)
    return int(missing or bool(strict and warned))


def _ask(
    cluster: ClusterFlags, agents: AgentOptions, policies: "Sequence[Policy]", nodes: Sequence[str], local: bool
) -> "list[NodeHooks]":
    from kubectl_gadget.policies.report.check import question
    from kubectl_gadget.run.nodes.hook_lookup import ask_cluster, ask_local

    asked = question(policies)
    if local:
        return wait_for(ask_local(asked))

    def tell(node: str, text: str) -> None:
        say(f"{node}: {text}" if node else text)

    return wait_for(ask_cluster(connect(cluster), asked, nodes, tell, agents))


def _print(reports: "Sequence[Report]", answers: "Sequence[NodeHooks]", headers: bool) -> None:
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
    from kubectl_gadget.policies.report.check import hook_name

    return hook_name(report.hook)


def _cell(report: "Report", hook: "HookReport", answer: "NodeHooks") -> str:
    if answer.problem:
        return "?"
    if not _is_for(report, answer):
        return "not selected"
    judgement = _judge(hook, answer)
    return {True: judgement.way, False: judgement.way or "missing", None: f"{judgement.way or '-'}?"}[judgement.works]


def _judge(hook: "HookReport", answer: "NodeHooks") -> "Judgement":
    from kubectl_gadget.policies.report.check import judge

    return judge(hook.hook, answer.hello, answer.hooks)


def _is_for(report: "Report", answer: "NodeHooks") -> bool:
    from kubectl_gadget.policies.model import is_for_node

    return answer.labels is None or is_for_node(report.policy.scope, answer.labels)


def _explain(reports: "Sequence[Report]", answers: "Sequence[NodeHooks]") -> bool:
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
    from kubectl_gadget.policies.report.check import unseen_variants

    asked = [answer for answer in answers if not answer.problem and _is_for(report, answer)]
    return [(answer.node, *found) for answer in asked for found in unseen_variants(report.policy, answer.hooks)]


def _as_json(report: "Report", answers: "Sequence[NodeHooks]") -> dict[str, object]:
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
