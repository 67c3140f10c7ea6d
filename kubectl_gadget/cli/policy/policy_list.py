"""`kubectl gadget policy list`: the policies that come with this program."""

import sys
from typing import Annotated

from kubectl_gadget.cli.flags.flag_declaration import Text, format_flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, NoHeaders, ScopeFlags
from kubectl_gadget.cli.help.printed_tables import print_json, print_table
from kubectl_gadget.output.registry import POLICY_LIST

Format = Annotated[Text, format_flag(POLICY_LIST)]


def list_policies(scope: ScopeFlags, cluster: ClusterFlags, output: Format = None, no_headers: NoHeaders = None) -> int:
    from kubectl_gadget.policies.builtin import read_builtin_policies
    from kubectl_gadget.policies.report.check import hook_name

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
