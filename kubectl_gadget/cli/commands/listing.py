"""`kubectl gadget list`: every gadget with its description."""

import sys
from typing import Annotated

from kubectl_gadget.cli.flags.flag_declaration import Text, format_flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, NoHeaders, ScopeFlags
from kubectl_gadget.cli.help.gadget_index import index
from kubectl_gadget.cli.help.printed_tables import print_json, print_table
from kubectl_gadget.output.registry import LISTS

Format = Annotated[Text, format_flag(LISTS)]


def list_gadgets(scope: ScopeFlags, cluster: ClusterFlags, output: Format = None, no_headers: NoHeaders = None) -> int:
    entries = index()
    if output == "json":
        rows = [
            {
                "name": entry.name,
                "command": f"kubectl gadget {' '.join(entry.command)}",
                "group": entry.group,
                "description": entry.summary,
            }
            for entry in entries
        ]
        print_json(rows)
    elif output == "name":
        sys.stdout.writelines(entry.name + "\n" for entry in entries)
    else:
        table = [(entry.group, " ".join(entry.command), entry.summary) for entry in entries]
        print_table(("GROUP", "GADGET", "DESCRIPTION"), table, not no_headers)
    return 0
