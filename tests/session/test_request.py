"""request.py: which programs the agents are asked for."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.catalogue.load import load_gadget
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import AgentSide, Gadget, Parameter, ProgramChoice
from kubectl_gadget.output.output_options import OutputOptions
from kubectl_gadget.session.request import build, early_request, of_run, packed_address
from kubectl_gadget.session.run_options import GadgetRun, RunOptions
from kubectl_gadget.views.tables.arrangement import Arrangement
from tests.events.records import OPEN

CHOICES = (
    ProgramChoice((("open_ends",), ("open_begins",)), when=("hook", "open")),
    ProgramChoice((("close_ends",),), optional=True, purpose="no ends are seen", when=("hook", "close")),
    ProgramChoice((("always",),)),
)
HOOK = Parameter("hook", "string", "which", "", default="open,close")


def asked_for(**parameters: str) -> list[tuple[str, bool]]:
    gadget: Gadget = replace(OPEN, agent=AgentSide(CHOICES), parameters=(HOOK,))
    request = build([GadgetRun(gadget, parameters)], [{}], 1 << 20)
    return [(item.any_of[0][0], item.optional) for item in request.gadgets[0].programs]


def test_programs_that_hang_on_a_word_are_those_of_the_default_when_nothing_is_given() -> None:
    assert asked_for() == [("open_ends", False), ("close_ends", True), ("always", False)]


def test_only_programs_whose_word_is_given_are_asked_for() -> None:
    assert asked_for(hook="open") == [("open_ends", False), ("always", False)]


def test_what_was_asked_for_by_its_name_is_not_optional() -> None:
    assert asked_for(hook="close") == [("close_ends", False), ("always", False)]


def test_all_asks_for_all() -> None:
    assert asked_for(hook="all") == [("open_ends", False), ("close_ends", True), ("always", False)]


def test_an_address_is_packed_as_records_have_it() -> None:
    assert packed_address("10.0.0.7").hex() == "00" * 10 + "ffff" + "0a000007"
    assert packed_address("::1").hex() == "00" * 15 + "01"


@pytest.mark.usefixtures("catalogue_built")
def test_a_recorder_gets_the_condition_for_showing_what_it_has() -> None:
    def asked(on: str) -> tuple[set[str], set[str]]:
        run = GadgetRun(load_gadget("traceloop"), {"on": on, "memory": 3})
        (gadget,) = build((run,), ({},), 1 << 20).gadgets
        by_programs = {word for word in ("crash", "kill") if gadget.parameters[f"gadget_recorder_on_{word}"]}
        assert gadget.recorder.bytes == 3 << 20
        return by_programs, {word for word in ("exit", "end") if getattr(gadget.recorder, word)}

    assert asked("crash, end") == ({"crash"}, {"end"})
    assert asked("all") == ({"crash", "kill"}, {"exit", "end"})


@pytest.mark.usefixtures("catalogue_built")
def test_what_is_of_little_weight_is_marked_for_the_agent() -> None:
    request = build([GadgetRun(load_gadget("trace_tcp"), {})], [{}], 1 << 20)
    (aside,) = [item for item in request.gadgets[0].programs if item.aside]
    assert aside.any_of == (("accept_of_uring",),)


@pytest.mark.parametrize(("other", "value"), [("failed", True), ("min", 1000)])
def test_a_call_that_is_shown_when_it_begins_has_no_result_to_ask_for(other: str, value: object) -> None:
    gadget = load_gadget("trace_syscalls")
    with pytest.raises(UsageError, match=f"--unique and --{other}"):
        build([GadgetRun(gadget, {"unique": True, other: value})], [{}], 1 << 20)
    assert build([GadgetRun(gadget, {"unique": True, other: type(value)()})], [{}], 1 << 20)


@pytest.mark.parametrize(
    "different",
    [
        {"filter": "pid == 1"},
        {"fail_on": "true"},
        {"expect": "true"},
        {"output": OutputOptions(columns=("pid",))},
        {"output": OutputOptions(format="jsonpath={.pid}")},
        {"arrangement": Arrangement(sort=("pid",))},
        {"beforehand": print},
        {"gadgets": (GadgetRun(load_gadget("top_file")),)},
        {"gadgets": (GadgetRun(load_gadget("trace_open"), directory=Path("/tmp")),)},
    ],
)
def test_a_run_is_requested_early_only_if_nothing_else_is_to_be_checked(different: dict[str, Any]) -> None:
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True, rest_ms=70)
    early = early_request(options)
    assert early is not None
    assert (early.gadgets, early.rest_ms) == (of_run(options, [{}]).gadgets, 70)
    assert early_request(replace(options, **different)) is None


def test_an_early_request_does_not_wait_for_numpy() -> None:
    program = """
import sys
from kubectl_gadget.catalogue import load_gadget
from kubectl_gadget.session.live_run import LiveRun
from kubectl_gadget.session.request import early_request
from kubectl_gadget.session.run_options import GadgetRun, RunOptions

assert early_request(RunOptions((GadgetRun(load_gadget("trace_open")),)))
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
