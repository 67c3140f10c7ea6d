"""`kubectl gadget demo`: runs any command that runs gadgets, on a few small pods that are started on this machine and
removed at the end.

The pods are started in the middle of the command, after it has checked the command line and before it starts the
gadgets, so that mistakes on the command line are reported immediately. Before that, it checks whether pods can be
started at all.
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer

from kubectl_gadget import demo
from kubectl_gadget.cli.arguments import Given
from kubectl_gadget.cli.command import (
    Command,
    Entry,
    GadgetCommand,
    GadgetGroup,
    GroupParts,
    levels_of,
    make_group,
    own_level,
    set_level,
)
from kubectl_gadget.cli.pages import page_of, unknown_gadget
from kubectl_gadget.cli.printing import say
from kubectl_gadget.cli.run_flags import RunFlags, beforehand
from kubectl_gadget.demo import NETWORK_POLICIES, Scene
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.demo import Scene

TIMEOUT = "10s"
_DEFAULT = ("trace", "open")
_OF_THE_DEMO = ("timeout", "local", "namespace", "all_namespaces", "objects", "quiet")
_NOT_HERE = ("demo", "list", "bcc", "bpftrace", "policy")
_POLICY = "--network-policy"
_POLICIES = ("network_policies", "from_cluster", "files", "builtin")


def demo_group(entries: Mapping[str, Entry]) -> GadgetGroup:
    """Return `kubectl gadget demo`, with the root's `entries` that run gadgets on one machine."""
    here = {name: entry for name, entry in entries.items() if entry.section == "Gadgets" and name not in _NOT_HERE}
    return make_group({"flags": RunFlags}, "demo", GroupParts(partial(page_of, "demo"), here, kind=DemoGroup))


class DemoGroup(GadgetGroup):
    """Runs a sub-command with the demo's pods; without one, `trace open`."""

    def execute(self, ctx: typer.Context) -> int:
        """Runs the command, which starts the pods, and suggests what to try next."""
        scene = Scene(is_ill=ctx.args[:1] == ["diagnose"])
        ctx.args = _with_policies(ctx.args or list(_DEFAULT), str(NETWORK_POLICIES))
        with ExitStack() as stack:
            objects = stack.enter_context(_objects(scene))
            own = (Given("timeout", TIMEOUT, "--timeout"), Given("local", True, "--local"))
            set_level(ctx, (*own, *objects, *own_level(ctx)))
            command: Command = self
            words, last = [], ctx
            while isinstance(command, GadgetGroup) and last.args:
                words.append(last.args[0])
                command, last = stack.enter_context(command.below(last))
            if isinstance(command, GadgetCommand):
                command.check(last)
                stack.enter_context(_among_pods(last, words, scene))
            return command.execute(last)

    def unknown(self, name: str, path: str) -> UsageError:
        """Suggests `demo trace open` for `demo open`."""
        return unknown_gadget(name, path) or super().unknown(name, path)


def _with_policies(words: Sequence[str], file: str) -> list[str]:
    """Adds the demo's file of network policies to `enforce` if that flag has no value. It is the only flag of a kubectl
    plugin with an optional value, so this is done here and not in the reader of flags."""
    found = list(words)
    if found[0] == "enforce" and _POLICY in found:
        after = found.index(_POLICY) + 1
        if after == len(found) or (found[after].startswith("-") and found[after] != "-"):
            found.insert(after, file)
    return found


@contextmanager
def _objects(scene: "Scene") -> Iterator[tuple[Given, ...]]:
    """--objects with the API objects of the pods, in an in-memory file, which need not be removed."""
    from kubectl_gadget.run.participants import local_node

    if not hasattr(os, "memfd_create"):  # not Linux, which is reported later
        yield ()
        return
    with os.fdopen(os.memfd_create("objects"), "w") as file:
        json.dump(scene.objects(local_node()), file)
        file.flush()
        yield (Given("objects", f"/proc/self/fd/{file.fileno()}", "--objects"),)


@contextmanager
def _among_pods(ctx: typer.Context, words: Sequence[str], scene: "Scene") -> Iterator[None]:
    """Runs inside the block have the pods. Raises GadgetError if this machine cannot have them."""
    given = {item.name: item.value for level in levels_of(ctx) for item in level}
    if given["local"] is False:
        raise UsageError("the demo runs on this machine, so --local=false cannot be used")
    tell = _silent if given.get("quiet") else say
    file = str(demo.NETWORK_POLICIES)
    if words[0] == "enforce" and not any(given.get(name) for name in _POLICIES):
        given["network_policies"] = file
        set_level(ctx, (*own_level(ctx), Given("network_policies", file, _POLICY)))
    hint = _next(words, _typed(ctx, file))
    if words[0] in ("enforce", "diagnose") and not ctx.params["pods"]:
        # The demo must not deny anything to other pods of this machine, and says nothing about them.
        ctx.params["pods"] = [pod.partition("/")[2] for pod in demo.PODS]
    started: list[bool] = []

    def start() -> None:
        tell(f"starting {len(demo.PODS)} pods on this machine: {', '.join(demo.PODS)}")
        if given.get("network_policies") == file:
            tell(f"network policies: {file}")
        scene.start(pods)
        started.append(True)

    with demo.stage(scene) as pods:
        before = beforehand.set(start)
        try:
            yield
        finally:
            beforehand.reset(before)
    if started:
        tell(hint)


def _typed(ctx: typer.Context, file: str) -> list[str]:
    """The words typed after the command, without the demo's own flags."""
    items = [item for level in levels_of(ctx)[1:] for item in level if item.name not in _OF_THE_DEMO]
    pods = [word for found in ctx.params.values() for word in found or ()]
    return [*map(shlex.quote, pods), *(_flag_as_typed(item, file) for item in items)]


def _flag_as_typed(item: Given, file: str) -> str:
    if isinstance(item.value, bool):
        return item.spelling if item.value != item.spelling.startswith("--no-") else f"{item.spelling}=false"
    return f"{item.spelling} {shlex.quote('policies.yaml' if item.value == file else item.value)}"


def _next(words: Sequence[str], typed: Sequence[str]) -> str:
    command = " ".join(words)
    other = "observe" if command == " ".join(_DEFAULT) else "trace open"
    return (
        "the pods are removed; next, try\n"
        f"  sudo kubectl gadget demo {other}\n"
        f"  kubectl gadget {' '.join([command, *typed, '-A'])}        in your cluster, on all nodes\n"
        f"  kubectl gadget {command} --help    flags, filters and output formats"
    )


def _silent(text: str) -> None:
    """Replaces say() with --quiet."""
