"""`kubectl gadget policy explain FIELD`: explains a field of a policy, without a cluster."""

import shutil
import sys
from typing import Annotated

import typer

from kubectl_gadget.cli.flags.declaration import CLUSTER, SHOW, WHERE, Switch, flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.example import Example

PAGE = Page(
    "Explain the fields of policies, as kubectl explain does.",
    (
        Example("kubectl gadget policy explain", "the policy as a whole"),
        Example("kubectl gadget policy explain kprobes.selectors.matchArgs", "one field, and those in it"),
        Example("kubectl gadget policy explain kprobes.args.type", "the types of arguments and their operators"),
        Example("kubectl gadget policy explain lsmhooks --recursive", "all that is below a field"),
    ),
    usage="[FIELD[.FIELD...]] [flags]",
    silent=(WHERE, CLUSTER),
)
Fields = Annotated[tuple[str, ...], typer.Argument(metavar="FIELD")]
Recursive = Annotated[Switch, flag(SHOW, "--recursive", "List all fields below it by name")]
_WIDEST = 110


def explain(scope: ScopeFlags, cluster: ClusterFlags, fields: Fields = (), recursive: Recursive = None) -> int:
    """Prints the field."""
    from kubectl_gadget.policies.report.explain import explain_field

    if len(fields) > 1:
        raise UsageError(f"one field at a time, not {' '.join(fields)}", f"one with dots: {'.'.join(fields)}")
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    sys.stdout.write(explain_field(fields[0] if fields else "", width, bool(recursive)))
    return 0
