"""What a session leaves out while nothing happens: its turn is then one look at each source."""

import math
import os
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from kubectl_gadget.agent.session.session import Session
from kubectl_gadget.agent.sources.source import Callbacks, Warnings
from kubectl_gadget.wire.agent_messages import GadgetStats


class Counted:
    """In the place of a Sender."""

    def __init__(self) -> None:
        self.turns = 0
        self.due = self.report_due = math.inf
        self.is_quiet = True

    def turn(self) -> bool:
        self.turns += 1
        return False


class Containers:
    """In the place of the node's containers, which have nothing to warn of."""

    def take_warnings(self) -> list[str]:
        return []


class Context:
    """In the place of a NodeContext."""

    def __init__(self) -> None:
        self.containers = Containers()
        self.callbacks = Callbacks()
        self.warnings = Warnings()


@pytest.fixture
def session() -> Iterator[Session]:
    ends = os.pipe()
    made = Session(*ends)
    made.next_stats = math.inf
    yield made
    made._client.close()
    for end in ends:
        os.close(end)


@pytest.mark.parametrize(
    ("changes", "is_woken", "turns"),
    [
        ({}, False, 0),
        ({}, True, 1),
        ({"is_quiet": False}, False, 1),
        ({"due": 0.0}, False, 1),
        ({"report_due": 0.0}, False, 1),
    ],
    ids=["at rest", "woken", "written to", "an interval is over", "an idle source has to report"],
)
def test_a_turn_at_rest_only_checks_whether_anything_came(
    session: Session, changes: dict[str, object], is_woken: bool, turns: int
) -> None:
    sender: Any = Counted()
    vars(sender).update(changes)
    context: Any = Context()
    calls: list[float] = []
    context.callbacks.each_turn.append(calls.append)
    session.due = min(sender.due, sender.report_due)
    session.turn(sender, context, is_woken)
    assert sender.turns == turns
    assert len(calls) == 1, "what is looked for often is looked for as often as before"


def test_the_next_turn_is_when_an_idle_source_has_to_report(session: Session) -> None:
    sender: Any = Counted()
    context: Any = Context()
    sender.report_due = time.monotonic() + 0.01
    session.turn(sender, context, True)
    assert session.next_turn == sender.report_due


@pytest.mark.parametrize(("asked_ms", "seconds"), [(250, 0.25), (0, 0.02), (10_000, 0.4)])
def test_a_client_may_ask_for_fewer_turns_at_rest_but_not_for_a_silent_agent(
    session: Session, asked_ms: int, seconds: float
) -> None:
    session.set_rest(asked_ms)
    before = time.monotonic()
    session.turn(cast(Any, Counted()), cast(Any, Context()), False)
    assert before + seconds <= session.next_turn <= time.monotonic() + seconds


def test_a_session_that_rests_longer_checks_its_programs_less_often(session: Session) -> None:
    session.set_rest(250)
    session.next_stats = 0.0
    before = time.monotonic()
    session.turn(cast(Any, Counted()), cast(Any, Context()), False)
    assert before + 2.5 <= session.next_stats <= time.monotonic() + 2.5


def test_programs_are_checked_while_the_client_reads_nothing(session: Session) -> None:
    checks: list[object] = []

    class Source:
        def stats(self) -> GadgetStats:
            checks.append(self)
            return GadgetStats()

    session.sources.append(cast(Any, Source()))
    session._pipe.put(b"it waits")
    for now_due in (0.0, math.inf):
        session.next_stats = now_due
        session.turn(cast(Any, Counted()), cast(Any, Context()), False)
    assert len(checks) == 1
    assert session._pipe.queued == 1, "no report waits"
