"""All goals in one run: an earlier version, which is built once, in turns with this one and with libbpf-tools.

    sudo .venv/bin/python -m bench.goals [--rounds 3] [--reference COMMIT] [--only GROUP …] [--all] [--json FILE]
                                         [--add FILE] [--markdown docs/performance.md] [-- FLAGS OF trace open]

FLAGS are for the cluster in $KUBECONFIG, whose agents are resident after `kubectl gadget deploy`. Groups, goals and
units are in bench/goal_list.py; some 20 minutes with three rounds on a machine that does nothing else. A cluster on the
same machine disturbs all other groups, so measure `--only real-cluster --json FILE` first, and --add it. On a busy
machine times say little. So the load, and what others have attached in the kernel, stand beside each row, and only what
was measured in turns, the ratio, is then meaningful.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.goal_list import GOALS, LONG, REFERENCE, Goal
from bench.goal_runs import GROUPS, Found, Setting
from bench.rounds import FAILURES, arguments, attached_bpf, describe_machine, reason, spread, write_json
from bench.versions import HERE, NOW, commit_here, earlier_version, this_version

BEGINS, ENDS = (
    "<!-- goals: written by `python -m bench.goals --markdown docs/performance.md` -->",
    "<!-- end of the goals -->",
)


def measure_group(group: str, setting: Setting) -> dict[str, Any]:
    """What a group measured, as in the JSON: values, failures, and the state of the machine."""
    before = _state()
    try:
        found = GROUPS[group](setting)
    except FAILURES as error:
        found = Found(failed={"all": reason(error)})
    found.failed = {variant: why.replace(str(HERE), ".") for variant, why in found.failed.items()}
    return {**vars(found), **_state(), "other BPF": before["other BPF"]}


def _state() -> dict[str, object]:
    others = attached_bpf().partition(",")[0].removesuffix(" attached")
    return {"load": round(os.getloadavg()[0], 1), "other BPF": others}


def table(results: Mapping[str, Any], reference: str) -> str:
    """The table of all groups in `results`, and the reasons for what is missing."""
    rows = [_row(goal, measured, reference) for group, measured in results.items() for goal in GOALS[group]]
    headers = ["", reference, NOW, "ratio", "beside", "goal", "", "load; other BPF"]
    text = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    text = re.sub(r" +\|", " |", re.sub(r"-{4,}", "---", text))
    notes = [
        f"- {group}, {variant}: not measured: {why}"
        for group, measured in results.items()
        for variant, why in measured["failed"].items()
    ]
    return "\n".join([text, "", *notes]).rstrip()


def _row(goal: Goal, measured: Mapping[str, Any], reference: str) -> list[str]:
    values: Mapping[str, Sequence[float]] = measured["values"].get(goal.what, {})
    medians = {variant: spread(found).median for variant, found in values.items()}
    now, before = medians.get(NOW), medians.get(reference)
    cells = {variant: spread(found).text(goal.digits) for variant, found in values.items()}
    others = {name.rpartition(" ")[2]: name for name in values if name not in (NOW, reference)}
    if now is None:
        verdict = "not measured"
    elif now < 0:
        verdict = "within the noise"
    elif goal.beside in others:
        verdict = goal.verdict(now, medians[others[goal.beside]], goal.beside)
    else:
        verdict = goal.verdict(now, before, reference)
    return [
        goal.what + (f", {goal.unit}" if goal.unit else ""),
        cells.get(reference, ""),
        cells.get(NOW, ""),
        f"{now / before:.2f}" if now is not None and now > 0 and before is not None and before > 0 else "",
        ", ".join(f"{tool} {cells[name]}" for tool, name in others.items()),
        goal.text(),
        verdict,
        f"{measured['load']}; {measured['other BPF']}",
    ]


def section(document: Mapping[str, Any]) -> str:
    """What stands between the markers, from a run's JSON."""
    machine, results = document["machine"], document["results"]
    about = (
        f"`python -m bench.goals {results['flags']}`, {machine['date']}, commit {results['commit']}, beside "
        f"{results['reference']}: {machine['kernel']}, {machine['cpus']} CPUs, {machine['memory']}, "
        f"Python {machine['python']}. Median (lowest to highest), in turns. *Ratio* is now to the reference; *load* is "
        "that of the last minute, and *other BPF* what others had attached in the kernel. Times, costs and sizes are "
        "better when they are lower, rates and what is delivered when they are higher. A goal's ratio is "
        f"to what {REFERENCE}, or the tool that it names, took when the goals were set, or on 2026-11-28, when the "
        "machine was as fast as then; *met as a ratio* means that the goal would be met at that speed, and is not met "
        "at today's."
    )
    if (busy := spread([measured["load"] for measured in results["groups"].values()])).median > 2 * machine["cpus"]:
        about += f" **The machine was busy**, at a load of {busy.text(0)}, so that only the ratios mean something."
    for group, measured in results["groups"].items():
        if "date" in measured:
            about += f" Measured apart: {group}, {measured['date']}."
    return f"{about}\n\n{table(results['groups'], results['reference'])}"


def measured_before(path: Path, commit: str, reference: str) -> dict[str, Any]:
    """The groups of another run's JSON, with its date. It must be of the same commits: a table of two says nothing."""
    document = json.loads(path.read_text())
    results = document["results"]
    if (results["commit"], results["reference"]) != (commit, reference):
        raise SystemExit(
            f"{path} was measured at commit {results['commit']} beside {results['reference']}, and not at {commit} "
            f"beside {reference}. Measure it again."
        )
    return {group: {**measured, "date": document["machine"]["date"]} for group, measured in results["groups"].items()}


def in_order(groups: Mapping[str, Any]) -> dict[str, Any]:
    return {group: groups[group] for group in GROUPS if group in groups}


def put(path: Path, text: str) -> None:
    """Replaces what is between the markers of a page."""
    page = path.read_text(encoding="utf-8")
    before, found, rest = page.partition(BEGINS)
    _, ended, after = rest.partition(ENDS)
    if not found or not ended:
        raise SystemExit(f"{path} has no lines {BEGINS} and {ENDS}")
    path.write_text(f"{before}{BEGINS}\n{text}\n{ENDS}{after}", encoding="utf-8")


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument(
        "--reference", default=REFERENCE, metavar="COMMIT", help="the earlier version (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"of: {', '.join(GROUPS)}")
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(LONG)}, which takes minutes")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the table between the markers of this page"
    )
    parser.add_argument(
        "--add", type=Path, metavar="FILE", help="the groups that another run of this commit measured, from its --json"
    )
    parser.add_argument("flags", nargs="*", help="more flags of trace open on the cluster in $KUBECONFIG")
    options = parser.parse_args()
    machine, reference = describe_machine(), earlier_version(options.reference)
    setting = Setting((reference, this_version()), options.rounds, options.flags)
    groups = options.only or [group for group in GROUPS if options.all or group not in LONG]
    added = measured_before(options.add, commit_here(), reference.name) if options.add else {}
    groups = [group for group in groups if group not in added]
    results: dict[str, Any] = {
        "flags": " ".join(
            [
                f"--rounds {options.rounds}",
                *(["--all"] if options.all else []),
                *(["--only", *options.only] if options.only else []),
            ]
        ),
        "commit": commit_here(),
        "reference": reference.name,
        "groups": {},
    }
    try:
        for group in groups:
            results["groups"][group] = measured = measure_group(group, setting)
            print(f"{group}:\n{table({group: measured}, reference.name)}\n", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        for group in groups[len(results["groups"]) :]:
            results["groups"][group] = {**vars(Found(failed={"all": "the run was ended before"})), **_state()}
    results["groups"] = in_order(results["groups"] | added)
    text = section({"machine": machine, "results": results})
    print(text)
    if options.markdown:
        put(options.markdown, text)
    write_json(options.json, machine, results)


if __name__ == "__main__":
    main()
