"""request.py: which programs the agents are asked for."""

from dataclasses import replace

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.load import load_gadget
from kubectl_gadget.gadgets.schema import AgentSide, Gadget, Parameter, ProgramChoice
from kubectl_gadget.run.request import RunRequest, build, packed_address
from kubectl_gadget.run.run_options import GadgetRun
from kubectl_gadget.wire.client_messages import FilterSpec, GadgetSpec
from tests.rows.records import OPEN

CHOICES = (
    ProgramChoice((("open_ends",), ("open_begins",)), when=("hook", "open")),
    ProgramChoice((("close_ends",),), optional=True, purpose="no ends are seen", when=("hook", "close")),
    ProgramChoice((("always",),)),
)
HOOK = Parameter("hook", "string", "which", "", default="open,close")


def test_nodes_that_are_asked_for_the_same_share_its_frames() -> None:
    spec = GadgetSpec(name="trace_open", object=0)
    request = RunRequest([spec], lambda index, architecture: f"{architecture}-{index}".encode())
    host, apart = FilterSpec(host=True), FilterSpec(pods=("xwing",))
    first = request.frames([spec], host, "x86_64")
    assert request.frames([spec], FilterSpec(host=True), "x86_64") is first
    assert b"aarch64-0" in request.frames([spec], host, "aarch64")
    assert request.frames([spec], host, "x86_64") is first
    assert b"xwing" in request.frames([spec], apart, "x86_64")
    other = spec.replace(kind="top")
    assert request.frames([other], apart, "x86_64") != request.frames([spec], apart, "x86_64")


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
    aside = [item.any_of for item in request.gadgets[0].programs if item.aside]
    assert (("accept_of_uring",),) in aside


@pytest.mark.parametrize(("other", "value"), [("failed", True), ("min", 1000)])
def test_a_call_that_is_shown_when_it_begins_has_no_result_to_ask_for(other: str, value: object) -> None:
    gadget = load_gadget("trace_syscalls")
    with pytest.raises(UsageError, match=f"--unique and --{other}"):
        build([GadgetRun(gadget, {"unique": True, other: value})], [{}], 1 << 20)
    assert build([GadgetRun(gadget, {"unique": True, other: type(value)()})], [{}], 1 << 20)
