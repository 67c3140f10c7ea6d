"""`kubectl gadget advise networkpolicy`: policies from flows, and what given policies would have done to these."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.advise.advisor import (
    AdviseFlags,
    advice_format,
    baselines_of,
    print_advice,
    print_documents,
    watch,
)
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags import connect
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Text, TypedOnly, flag
from kubectl_gadget.cli.flags.own_namespace import own_namespace
from kubectl_gadget.cli.flags.policy_flags import objects_flag
from kubectl_gadget.cli.flags.run_flags import replaying
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.advise.uses import SeenUses

BLOCKED = 4
"""The exit code of --fail-on, also used when --check found something."""
_FORMATS = ("kubernetes", "cilium")
Format = Annotated[Text, advice_format(*_FORMATS)]
Check = Annotated[
    Text, flag(SHOW, "--check FILE", "Only show what these policies would have blocked"), TypedOnly.ACTION
]
Objects = Annotated[Text, objects_flag(SHOW), TypedOnly.ACTION]


def networkpolicy(
    pods: Pods, flags: AdviseFlags, format: Format = None, check: Check = None, objects: Objects = None
) -> int:
    """Makes policies from flows, or reports what given policies would have done to them."""
    from kubectl_gadget.advise import networkpolicy as advisor
    from kubectl_gadget.advise.documents import read_text
    from kubectl_gadget.policies.network.evaluate import read_policies

    if format is not None and check is not None:
        raise UsageError("--format and --check cannot be used together")
    if (baselines := baselines_of(flags, pods)) is not None:
        from kubectl_gadget.advise.networkpolicy import network_policies

        if check or objects or format == "cilium":
            given = "--check" if check else "--objects" if objects else "--format cilium"
            raise UsageError(f"{given} cannot be used with a baseline, which has no addresses", "--from a recording")
        return print_advice(network_policies(baselines), flags)
    policies = None
    if check:
        offline = flags.target.local or bool(flags.watch.recordings) or replaying.get() is not None
        policies = read_policies(read_text(check), check, own_namespace(flags.scope, flags.cluster, offline))
    recording, code = watch(advisor.RECIPE, pods, flags, objects)
    if policies is not None:
        return _report(recording, policies, flags) or code
    print_documents(advisor.advise(recording, format or "kubernetes"), recording, flags, advisor.warnings(recording))
    return code


def _report(recording: "SeenUses", policies: Sequence[Mapping[str, object]], flags: AdviseFlags) -> int:
    """Prints what would have been blocked; returns BLOCKED if there is anything."""
    from dataclasses import asdict

    from kubectl_gadget.cli.help.printed_tables import print_json, print_table
    from kubectl_gadget.policies.network.evaluate import blocked

    print_documents((), recording, flags)
    found = blocked(recording.inventory, recording.uses, policies)
    if flags.watch.output == "json":
        print_json([asdict(item) for item in found])
    elif flags.watch.output == "yaml":
        import yaml

        sys.stdout.write(yaml.safe_dump([json.loads(json.dumps(asdict(item))) for item in found], sort_keys=False))
    elif found:
        rows = [
            (f"{item.namespace}/{item.pod}", item.direction, item.peer, f"{item.port}/{item.protocol}",
             str(item.connections), ",".join(item.policies))
            for item in found
        ]  # fmt: skip
        print_table(("POD", "DIRECTION", "PEER", "PORT", "CONNECTIONS", "POLICIES"), rows)
    connect.say(f"{len(found)} of {len(recording.uses)} flows would have been blocked")
    return BLOCKED if found else 0
