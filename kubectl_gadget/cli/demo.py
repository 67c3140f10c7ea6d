"""`kubectl gadget demo`: any command that runs gadgets, on three small pods that are started on this machine, and
removed at the end.

The trap: the pods are started only after every flag was read, so that what was typed wrong costs nothing.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from kubectl_gadget.cli import connect
from kubectl_gadget.cli.arguments import Given
from kubectl_gadget.cli.binding import level_key, levels_of
from kubectl_gadget.cli.command import Entry, GadgetGroup, GroupParts, make_group
from kubectl_gadget.cli.enforce_network import check_objects
from kubectl_gadget.cli.gadget_index import unknown_gadget
from kubectl_gadget.cli.help import Page
from kubectl_gadget.cli.run_options import RunFlags
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import Example

TIMEOUT = "10s"
_DEFAULT = ("trace", "open")
_OF_THE_DEMO = ("timeout", "local", "namespace", "all_namespaces", "objects", "quiet")
_NOT_HERE = ("demo", "list", "bcc", "bpftrace", "policy")
PAGE = Page(
    "Run a gadget on three small pods on this machine, for 10 s; needs Linux and root, and no cluster.",
    (
        Example("sudo kubectl gadget demo", "files that the pods open"),
        Example(
            "sudo kubectl gadget demo trace exec --failed --timeout 30s", "programs that could not start, for 30 s"
        ),
        Example("sudo kubectl gadget demo observe --tree", "the life of their processes"),
    ),
    usage="[COMMAND] [flags]",
    more="Flags are those of COMMAND: kubectl gadget demo COMMAND --help.",
)


def demo_group(entries: Mapping[str, Entry]) -> Any:
    """`kubectl gadget demo`, with those of the root's `entries` that run gadgets on one machine."""
    here = {name: entry for name, entry in entries.items() if entry.section == "Gadgets" and name not in _NOT_HERE}
    return make_group(_flags, "demo", GroupParts(PAGE, here, kind=DemoGroup))


class DemoGroup(GadgetGroup):
    """Runs a sub-command among its pods; without one, `trace open`."""

    def invoke(self, ctx: Any) -> Any:
        """Starts the pods, runs the command, and says what to try next."""
        ctx.args = ctx.args or list(_DEFAULT)
        own = (Given("timeout", TIMEOUT, "--timeout"), Given("local", True, "--local"))
        ctx.meta[level_key(ctx)] = (*own, *ctx.meta[level_key(ctx)])
        with ExitStack() as stack:
            words, last = [], ctx
            while isinstance(last.command, GadgetGroup) and last.args:
                words.append(last.args[0])
                last = stack.enter_context(last.command.below(last))
            if not isinstance(last.command, GadgetGroup):
                last.command.check(last)
                stack.enter_context(_pods(last, words))
            return last.command.invoke(last)

    def unknown(self, name: str, path: str) -> UsageError:
        """`demo open` was meant to be `demo trace open`."""
        return unknown_gadget(name, path) or super().unknown(name, path)


@contextmanager
def _pods(ctx: Any, words: Sequence[str]) -> Iterator[None]:
    from kubectl_gadget.demo import demo_pods

    given = {item.name: item.value for level in levels_of(ctx) for item in level}
    if given["local"] is False:
        raise UsageError("the demo runs on this machine; --local=false makes no sense with it")
    tell = _silent if given.get("quiet") else connect.say
    if words[0] == "enforce" and (given.get("network_policies") or given.get("from_cluster")):
        check_objects(str(given.get("objects") or ""))
    names = "default/xwing, default/tiefighter and empire/deathstar"
    with demo_pods(begin=lambda: tell(f"starting three pods on this machine: {names}")):
        yield
    tell(_next(words, _typed(ctx)))


def _typed(ctx: Any) -> list[str]:
    """What was typed behind the command, less what is about the demo alone."""
    own = levels_of(ctx.find_root())
    items = [item for level in levels_of(ctx)[len(own) :] for item in level if item.name not in _OF_THE_DEMO]
    pods = [word for found in ctx.params.values() for word in found or ()]
    values = ["" if item.value is True else f" {shlex.quote(str(item.value))}" for item in items]
    flags = [f"{item.spelling}{value}" for item, value in zip(items, values, strict=True)]
    return [*map(shlex.quote, pods), *flags]


def _next(words: Sequence[str], typed: Sequence[str]) -> str:
    command = " ".join(words)
    other = "observe" if command == " ".join(_DEFAULT) else "trace open"
    return (
        "the pods are gone again; next, try\n"
        f"  sudo kubectl gadget demo {other}\n"
        f"  kubectl gadget {' '.join([command, *typed, '-A'])}        in your cluster, on all nodes\n"
        f"  kubectl gadget {command} --help    flags, filters and output formats"
    )


def _silent(text: str) -> None:
    """Takes the place of say() with --quiet."""


def _flags(flags: RunFlags) -> int:
    raise NotImplementedError("a group only lends its flags")
