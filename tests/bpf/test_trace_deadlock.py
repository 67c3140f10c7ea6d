"""trace deadlock: a program that never hangs, and could."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.stacks import NodeStacks
from kubectl_gadget.rows.views import make_stage
from tests.agent.burners import WAYS, compile_burner
from tests.bpf.followed import Followed, go, waiting

pytestmark = pytest.mark.bpf

STACKS = ("from_stack", "to_stack")


@pytest.fixture
def locker(tmp_path: Path) -> Iterator[Any]:
    with waiting(compile_burner(tmp_path / "locker", *WAYS["static"], program="locker")) as process:
        yield process


def rows(process: Any) -> list[dict[str, Any]]:
    """As the pipeline makes them."""
    with Followed("trace_deadlock", pid=process.pid) as tracer:
        # Of stream gadgets the places in functions are told, too.
        tracer.stacks._with_offsets = True
        tracer.look()
        go(process)
        sent = decode(tracer.gadget.as_sent(), "node", tracer.data())
        stacks = NodeStacks()
        tracer.stacks.take(time.monotonic())
        new = tracer.stacks.take_new(0)
        assert new
        stacks.apply(new)
        assert tracer.lost == 0
    for name in STACKS:
        sent.give(name, stacks.numbers(sent.raw(name)))
    stage = make_stage(tracer.gadget, {})
    assert stage
    found = MemberRows().records(Rows([decode(tracer.gadget, "node", stage.rows(sent, 0))]))
    assert stage.rest() == b""
    return found


def functions(stack: list[str]) -> list[str]:
    return [name.split("+")[0].split(" ")[0] for name in stack]


def test_each_circle_is_reported_once_with_its_threads_and_both_stacks(locker: Any) -> None:
    found = rows(locker)
    assert [(row["circle"], row["step"], row["steps"]) for row in found] == [
        *((1, 1, 2), (1, 2, 2)),
        *((2, 1, 3), (2, 2, 3), (2, 3, 3)),
    ]
    second, first = found[:2]
    assert (first["holds"], first["wants"]) == (second["wants"], second["holds"])
    assert functions(first["held_stack"])[0] == functions(first["wanted_stack"])[0] == "forwards"
    assert functions(second["held_stack"])[0] == functions(second["wanted_stack"])[0] == "backwards"
    assert first["held_stack"] != first["wanted_stack"]
    assert first["tid"] != second["tid"]
    assert {row["pid"] for row in found} == {locker.pid}
    of_three = found[2:]
    assert [row["wants"] for row in of_three] == [row["holds"] for row in (*of_three[1:], of_three[0])]
    assert len({row["tid"] for row in of_three}) == 3
