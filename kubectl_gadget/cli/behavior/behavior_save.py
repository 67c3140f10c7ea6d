"""`kubectl gadget behavior save`, `update` and `merge`: write baselines.

The trap: the file is replaced only after everything went well, since it may be under review, and the only copy.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.behavior.fact_sources import BehaviorFlags, Files, Words, collected
from kubectl_gadget.cli.flags import connect
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Switch, Text, TypedOnly, flag
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.behavior.facts import Behavior

NoEvidence = Annotated[
    Switch, flag(SHOW, "--no-evidence/--evidence", "Leave out times, counts and rows at the end of the file")
]
Force = Annotated[Switch, flag(SHOW, "--force", "Replace an existing file"), TypedOnly.FILES]
To = Annotated[Text, flag(SHOW, "--to FILE", "Write it to this file (default: print it)")]


def save(words: Words, flags: BehaviorFlags, no_evidence: NoEvidence = None, force: Force = None) -> int:
    from kubectl_gadget.advise.documents import check_writable

    path = _baseline(words, "save")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", f"kubectl gadget behavior update {path}, or --force to replace it")
    check_writable(path)
    found, code = collected(words[1:], flags)
    _write(path, found, not no_evidence)
    _report(found, path, bool(flags.collect.quiet))
    return code


def update(words: Words, flags: BehaviorFlags, no_evidence: NoEvidence = None) -> int:
    from kubectl_gadget.advise.documents import check_writable
    from kubectl_gadget.behavior.baseline import read_baseline
    from kubectl_gadget.behavior.comparison import ChangeKind, compare
    from kubectl_gadget.behavior.facts import merge

    path = _baseline(words, "update")
    before = read_baseline(path).behavior
    check_writable(path)
    found, code = collected(words[1:], flags, before)
    new = [change for change in compare(before, found) if change.kind is ChangeKind.NEW]
    together = merge([before, found])
    _write(path, together, not no_evidence)
    connect.say(f"{len(new)} new facts")
    _report(together, path, bool(flags.collect.quiet))
    return code


def merge(files: Files, to: To = None, no_evidence: NoEvidence = None, force: Force = None) -> int:
    from kubectl_gadget.behavior.baseline import baseline_text, read_baseline
    from kubectl_gadget.behavior.facts import merge as merge_behaviors

    if not files:
        raise UsageError("no baseline was given", "kubectl gadget behavior merge BASELINE BASELINE")
    together = merge_behaviors(read_baseline(path).behavior for path in dict.fromkeys(map(Path, files)))
    if to is None:
        sys.stdout.write(baseline_text(together, not no_evidence))
        return 0
    if Path(to).exists() and not force:
        raise UsageError(f"{to} exists", "--force to replace it")
    _write(Path(to), together, not no_evidence)
    _report(together, Path(to), False)
    return 0


def _baseline(words: tuple[str, ...], command: str) -> Path:
    if not words:
        raise UsageError("no file for the baseline was given", f"kubectl gadget behavior {command} BASELINE.yaml")
    return Path(words[0])


def _write(path: Path, found: "Behavior", with_evidence: bool) -> None:
    from kubectl_gadget.advise.documents import write_text
    from kubectl_gadget.behavior.baseline import baseline_text

    text = baseline_text(found, with_evidence)
    write_text(path, text)


def _report(found: "Behavior", path: Path, quiet: bool) -> None:
    """Says what was written, and what is incomplete in it."""
    from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind
    from kubectl_gadget.counts import some

    if not quiet:
        connect.say(f"{path}: {len(found.facts)} facts of {len(found.coverage)} containers")
    for text in dict.fromkeys(found.missing):
        connect.say(f"warning: not watched: {text}")
    reasons: dict[str, list[str]] = {}
    for unit, coverage in found.coverage.items():
        if not coverage.complete_runs:
            for reason in coverage.incomplete:
                reasons.setdefault(reason, []).append(str(unit))
    for reason, units in reasons.items():
        connect.say(f"warning: incomplete: {some(units, 3)}: {reason}")
    looked_at = {kind for coverage in found.coverage.values() for kind in coverage.kinds}
    if unseen := ", ".join(kind for kind in FactKind if kind in USUAL_KINDS - looked_at):
        connect.say(f"warning: not observed: {unseen} (record --for behavior observes everything)")
