"""`kubectl gadget diagnose`: what is wrong with pods, in words."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli import values
from kubectl_gadget.cli.flags import SHOW, FlagSet, OutputFlags, Page, Seconds, Switch, Text, TypedOnly, Verbose, flag
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.printing import print_json
from kubectl_gadget.cli.run import recorded_for_page, write_page
from kubectl_gadget.cli.run_flags import SilentRunFlags, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.run.coverage import EXPECTATION_FAILED, INCONCLUSIVE
from kubectl_gadget.wording import did_you_mean

if TYPE_CHECKING:
    from kubectl_gadget.diagnose.rules import Rule
    from kubectl_gadget.diagnose.search import Report

_FORMATS = ("text", "json", "name", "markdown", "html", "junit", "sarif")
_SECONDS = 30.0
_RING_BYTES = 1 << 20
"""Of each of some 24 gadgets, which mostly pass on failures; an agent has them in its memory twice."""
_RULES = "Rules"
_WIDEST, _NARROWEST = 120, 60
"""Cells of a line of the report: longer lines are hard to read, and shorter ones hold no row."""


@dataclass(frozen=True)
class DiagnoseFlags(FlagSet):
    """Flags for how long to look, by which rules, and what is printed."""

    output: Annotated[
        Text, flag(SHOW, "--output, -o FORMAT", f"{', '.join(_FORMATS)} (default: text)", choices=_FORMATS)
    ] = None
    timeout: Annotated[Seconds, flag(SHOW, "--timeout TIME", "How long to look: 30s (the default), 5m")] = None
    fail_on: Annotated[
        Text,
        flag(
            SHOW,
            f"--fail-on-finding [{'|'.join(values.SEVERITIES)}]",
            "Exit code 4 for a finding of at least this level (default: error), 5 if inconclusive",
            choices=values.SEVERITIES,
        ),
        TypedOnly.END,
    ] = None
    report: Page = None
    record: Annotated[Text, flag(SHOW, "--record FILE", "Also record the events that were looked at")] = None
    objects: Annotated[
        Text,
        flag(SHOW, "--objects FILE", "With --local: from kubectl get po,svc,endpointslices,no,ev,rs -A -o yaml"),
        str,
        TypedOnly.ACTION,
    ] = None
    rules: Annotated[
        Text, flag(_RULES, "--rules DIR", "Also use rules of DIR/*.yaml; they replace built-in ones of the same name")
    ] = None
    explain: Annotated[
        Text, flag(_RULES, "--explain RULE", "Describe a rule, and exit; `all` lists them"), TypedOnly.ACTION
    ] = None
    color: Annotated[
        Text,
        flag(SHOW, "--color WHEN", "auto (respects NO_COLOR), always or never", choices=values.COLORS, default="auto"),
    ] = None
    quiet: Annotated[Switch, flag(SHOW, "--quiet, -q", "No progress on standard error")] = None
    verbose: Verbose = None


def diagnose(pods: Pods, flags: SilentRunFlags, own: DiagnoseFlags) -> int:
    """Looks for what is wrong with pods: traces them, asks the API, and says the cause and what to do."""
    from kubectl_gadget.diagnose import rules
    from kubectl_gadget.kube import read_turns

    files = _files(own.rules)
    known = rules.load([*rules.own_files(), *files])
    if files:
        from kubectl_gadget.diagnose import examples

        examples.check(rule for rule in known if rule.file in map(str, files))
    if own.explain is not None:
        return _explain(known, own.explain)
    from kubectl_gadget.diagnose.run import DiagnoseRun
    from kubectl_gadget.diagnose.search import runs
    from kubectl_gadget.reports.model import Severity

    output = OutputFlags(
        timeout=own.timeout, report=own.report, record=own.record, quiet=own.quiet, verbose=own.verbose
    )
    options = run_options(runs(known), pods, flags.with_output(output))
    options = replace(options, ring_bytes=flags.engine.ring_bytes or _RING_BYTES)
    objects = None
    if own.objects:
        from kubectl_gadget.cli.policy_flags import OBJECTS_ARE_LOCAL
        from kubectl_gadget.diagnose.cluster import KINDS
        from kubectl_gadget.policies.network.run import read_objects

        if not options.local or options.replay is not None:
            raise UsageError(OBJECTS_ARE_LOCAL)
        objects = read_objects(own.objects, KINDS)
    until = _SECONDS if own.timeout is None and options.replay is None else None
    with (
        recorded_for_page(options) if own.output == "html" or options.page else nullcontext((options, None)) as (
            options,
            recorded,
        )
    ):
        run = DiagnoseRun(options, known, sys.stderr, until=until, objects=objects)
        found = read_turns.run(run.main()) if options.replay is None else run.replay(sys.stdout, sys.stderr)
        if own.output != "html":
            _print(found, own)
        if recorded is not None:
            for path in filter(None, (options.page, "-" if own.output == "html" else None)):
                write_page(recorded, path, options, found)
    if own.fail_on is None:
        return 0
    if any(finding.level.reaches(Severity(own.fail_on)) for finding in found.findings):
        return EXPECTATION_FAILED
    return INCONCLUSIVE if found.is_inconclusive else 0


def _print(found: "Report", own: DiagnoseFlags) -> None:
    from kubectl_gadget.diagnose import report
    from kubectl_gadget.output.terminal import find_terminal, wants_color

    if own.output == "json":
        print_json(report.document(found))
    elif own.output == "name":
        sys.stdout.writelines(f"{each.id}\n" for each in found.findings)
    elif own.output not in (None, "text"):
        from kubectl_gadget.reports.files import rendered
        from kubectl_gadget.reports.model import Severity

        made = report.run_report(found, Severity(own.fail_on or Severity.ERROR))
        sys.stdout.buffer.write(rendered(made, own.output).encode("utf-8", "replace"))
    else:
        terminal = find_terminal(sys.stdout, os.environ)
        width = max(_NARROWEST, min(terminal.width() if terminal else _WIDEST, _WIDEST))
        lines = report.text(found, wants_color(own.color or "auto", terminal), width)
        sys.stdout.writelines(f"{line}\n" for line in lines)


def _files(folder: str | None) -> list[Path]:
    """Return a user's files of rules. Raises UsageError if there are none."""
    if folder is None:
        return []
    found = sorted(Path(folder).glob("*.yaml"))
    if not found:
        raise UsageError(f"--rules {folder}: there are no files *.yaml")
    return found


def _explain(known: "Sequence[Rule]", name: str) -> int:
    from kubectl_gadget.cli.printing import print_table

    if name == "all":
        print_table(
            ("RULE", "GROUP", "SEVERITY", "DESCRIPTION"),
            [(rule.name, rule.group, str(rule.severity), rule.description) for rule in known],
        )
        return 0
    by_name = {rule.name: rule for rule in known}
    if name not in by_name:
        raise UsageError(f"--explain: there is no rule {name!r}{did_you_mean(name, by_name)}", "--explain all")
    rule, words = by_name[name], by_name[name].words
    parts = {
        "rule": f"{rule.name}, {rule.group}, {rule.severity}",
        "what": rule.description,
        "says": words.title,
        "cause": words.cause,
        "sure": f"{rule.confidence}{f': {words.why}' if words.why else ''}",
        "do": words.remedy,
        "needs": ", ".join(sorted(rule.gadgets)) or "the API server only",
        "explains": ", ".join(name for name, _ in rule.explains),
        "provoke": rule.provoke,
    }
    sys.stdout.writelines(f"{name + ':':<10}{text}\n" for name, text in parts.items() if text)
    return 0
