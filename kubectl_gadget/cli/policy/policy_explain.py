"""`kubectl gadget policy explain FIELD`: explains a field of a policy, without a cluster."""

import shutil
import sys
from typing import Annotated

import typer

from kubectl_gadget.cli.flags.flag_declaration import SHOW, Switch, flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.errors import UsageError

Fields = Annotated[tuple[str, ...], typer.Argument(metavar="FIELD")]
Recursive = Annotated[Switch, flag(SHOW, "--recursive", "List all fields below it by name")]
_WIDEST = 110


def explain(scope: ScopeFlags, cluster: ClusterFlags, fields: Fields = (), recursive: Recursive = None) -> int:
    from kubectl_gadget.policies.report.explain import explain_field

    if len(fields) > 1:
        raise UsageError(f"one field at a time, not {' '.join(fields)}", f"one with dots: {'.'.join(fields)}")
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    sys.stdout.write(explain_field(fields[0] if fields else "", width, bool(recursive)))
    return 0
