"""Runs one command line and writes when each of its stages ended; run by bench/start.py.

    python -m bench.start_stages FILE trace open …

A stage's function is wrapped where it is looked up, and only once its module has been imported, so that nothing is
imported earlier than usual.
"""

import time

BEGAN = time.time()

import asyncio  # noqa: E402
import functools  # noqa: E402
import importlib.abc  # noqa: E402
import importlib.machinery  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402
from typing import Any  # noqa: E402

seen: dict[str, float] = {"interpreter": BEGAN}
resident: list[int] = []
"""Memory in bytes of each agent at its end."""
sent: list[int] = []
"""Bytes of each agent that was sent to its node."""


def over(stage: str, first: bool = False) -> None:
    """Records that the stage has ended for one node; `first`: later ends do not count."""
    if not first or stage not in seen:
        seen[stage] = time.time()


def after(stage: str) -> Callable[[Any], Any]:
    """Wraps a function so that the stage ends when it returns."""

    def wrap(function: Any) -> Any:
        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def later(*words: Any, **named: Any) -> Any:
                found = await function(*words, **named)
                over(stage)
                return found

            return later

        @functools.wraps(function)
        def at_once(*words: Any, **named: Any) -> Any:
            found = function(*words, **named)
            over(stage)
            return found

        return at_once

    return wrap


def before(stage: str, first: bool = True) -> Callable[[Any], Any]:
    """Wraps a function so that the stage ends when it is called, for the first time or for each node."""

    def wrap(function: Any) -> Any:
        @functools.wraps(function)
        def called(*words: Any, **named: Any) -> Any:
            over(stage, first)
            return function(*words, **named)

        return called

    return wrap


def frames(function: Any) -> Any:
    """Wraps NodeSession._handle: the frames that an agent sends."""

    @functools.wraps(function)
    async def handle(session: Any, stream: Any, frame: Any, *more: Any) -> Any:
        if stage := {1: "HELLO", 2: "STARTED"}.get(int(frame.type)):
            over(stage)
        if frame.type == 7:  # END has the last statistics
            resident.append(
                int(((json.loads(frame.payload).get("stats") or {}).get("agent") or {}).get("rss_bytes") or 0)
            )
        return await function(session, stream, frame, *more)

    return handle


def counted(function: Any) -> Any:
    """Wraps cluster.payload.payload_bytes: what is sent to a node without an agent."""

    @functools.wraps(function)
    def called(*words: Any) -> Any:
        found = function(*words)
        sent.append(len(found))
        return found

    return called


WRAPPED: dict[str, tuple[tuple[str, Callable[[Any], Any]], ...]] = {
    "kubectl_gadget.cli.run": (("run", before("command line")),),
    "kubectl_gadget.run.local_node": (("open_local", after("stream open")),),
    "kubectl_gadget.run.participants": (("open_local", after("stream open")),),
    "kubectl_gadget.run.node": (("NodeSession._handle", frames),),
    "kubectl_gadget.run.preparation": (("prepare", after("prepared")),),
    "kubectl_gadget.kube.kubeconfig": (("load", after("kubeconfig")),),
    "kubectl_gadget.agents.per_node": (
        ("Agents._exec", before("agent found", first=False)),
        ("open_agent", after("agent sent")),
    ),
    "kubectl_gadget.agents.boot": (("open_exec", after("stream open")), ("payload_bytes", counted)),
    "kubectl_gadget.run.pipeline": (("Pipeline._emit", after("row")),),
}


class Wrapper(importlib.abc.MetaPathFinder):
    """Wraps the functions named in WRAPPED when their module is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in WRAPPED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            for dotted, wrap in WRAPPED[name]:
                owner: Any = module
                *outer, last = dotted.split(".")
                for part in outer:
                    owner = getattr(owner, part)
                setattr(owner, last, wrap(getattr(owner, last)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def main() -> None:
    sys.meta_path.insert(0, Wrapper())
    from kubectl_gadget.cli.main import run
    from kubectl_gadget.run.local_agent import start_early

    start_early(sys.argv[2:])  # as main() does
    code = run(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps({"stages": seen, "resident": resident, "sent": sent}))
    sys.exit(code)


if __name__ == "__main__":
    main()
