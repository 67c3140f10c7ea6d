"""The border: what is read has the types that were declared, and what is wrong is named."""

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire import agent_messages, client_messages, policy_messages
from kubectl_gadget.wire.agent_messages import OF_AGENTS, End, Hello, Problem, Stats, WarningText, from_agent
from kubectl_gadget.wire.client_messages import GadgetSpec, Library, Run, Update
from kubectl_gadget.wire.frames import EventsHeader, Frame, FrameType, split_events
from kubectl_gadget.wire.message import Message, _plan, read
from kubectl_gadget.wire.policy_messages import InstalledSpec, PolicySpec, Resolve
from tests.spoilt import ODD, as_json, spoilt

GADGET = {
    "name": "trace_open",
    "object": 0,
    "programs": [{"any_of": [["a", "b"], ["c"]], "optional": True}],
    "globals": {"gadget_filter_pid": {"offset": 0, "size": 4}},
    "parameters": {"gadget_filter_pid": 1, "path": "/etc", "addr": {"hex": "0a0b"}, "failed": True},
    "layout": {"size": 96, "fields": {"pid": [16, 4]}, "texts": ["target"]},
    "libraries": [{"files": ["libssl.so"], "functions": {"SSL_write": ["w"]}}],
}
WAY = {"program": "on_lsm", "kind": "lsm", "target": "file_open", "method": "denies", "same": ["a", "b"]}
HOOK = {
    "name": "file_open",
    "words": 1,
    "variables": {"policy_slots": {"hex": "00"}},
    "ways": [WAY],
    "selectors": [0, -1],
    "workloads": {"1": [2, 3]},
    "tables": {"policy_numbers": "AAEC"},
    "files": [{"test": 3, "path": "/etc/shadow", "selectors": "AQ=="}],
}
POLICY = {
    "name": "policy",
    "kind": "policy",
    "scopes": [{"pods": True, "host": False, "containers": [{"key": "name", "operator": "Exists"}]}],
    "hooks": [HOOK],
    "kill": {"0": "1f"},
    "requests": {"0": {"3": [["url", "http://canary/"]]}},
    "labels": {"node": [3], "pods": {"u1": [0, 2], "u2": None}},
}
RUN = {"gadgets": [GADGET, POLICY, {"name": "installed", "kind": "installed"}], "filter": {"pods": ["xwing"]}}


def declared(*modules: ModuleType) -> Iterator[type[Message]]:
    for module in modules:
        found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Message)]
        yield from (each for each in found if each.__module__ == module.__name__ and each.__name__[:1] != "_")


ALL = list(declared(agent_messages, client_messages, policy_messages))


@pytest.mark.parametrize("cls", ALL)
def test_every_member_can_be_read_and_has_a_default_of_its_own_type(cls: type[Message]) -> None:
    assert _plan(cls, False)
    for name, (_, codec, required, default) in _plan(cls, False).items():
        if not required and default is not None:
            written = codec.write(default)
            assert codec.write(codec.read(json.loads(json.dumps(written)))) == written, name


def test_what_is_written_is_read_as_the_same() -> None:
    run = Run.from_json(RUN)
    assert [type(gadget) for gadget in run.gadgets] == [GadgetSpec, PolicySpec, InstalledSpec]
    assert read(Run, run.to_bytes(), "RUN") == run
    assert run.to_json() == RUN


def test_bytes_numbers_and_sets_keep_their_types_at_the_boundary() -> None:
    _, policy, _ = Run.from_json(RUN).gadgets
    assert isinstance(policy, PolicySpec)
    (hook,) = policy.hooks
    assert (policy.kill, hook.tables, hook.files[0].selectors) == ({0: 0x1F}, {"policy_numbers": b"\0\1\2"}, b"\1")
    assert hook.variables == {"policy_slots": b"\0"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "`gadgets` is missing"),
        ({"gadgets": {}}, "`gadgets` is object, not a list"),
        ({"gadgets": [7]}, "`gadgets[0]` is 7, not an object"),
        ({"gadgets": [{**GADGET, "object": True}]}, "`gadgets[0].object` is True, not a whole number"),
        ({"gadgets": [{**GADGET, "object": 1.0}]}, "`gadgets[0].object` is 1.0, not a whole number"),
        ({"gadgets": [{**GADGET, "object": 1 << 64}]}, "`gadgets[0].object` is a number beyond 64 bits"),
        ({"gadgets": [{**GADGET, "parameters": {"a": {"hex": "0"}}}]}, "`gadgets[0].parameters.a` is '0', not bytes"),
        ({"gadgets": [{**GADGET, "parameters": {"a": "\ud800"}}]}, "`gadgets[0].parameters.a` is '\\ud800', not a"),
        ({"gadgets": [{**POLICY, "kill": {"-1": "1"}}]}, "`gadgets[0].kill.-1` has a key that is not a number"),
        ({"gadgets": [{**POLICY, "kill": {"0": "0x1"}}]}, "`gadgets[0].kill.0` is '0x1', not hexadecimal digits"),
        ({"gadgets": [{**GADGET, "layout": {"size": 1, "fields": {"a": [1]}}}]}, "fields.a` is list, not a list of 2"),
    ],
)
def test_an_error_names_the_member_that_is_wrong(value: object, said: str) -> None:
    with pytest.raises(FrameError) as caught:
        Run.from_json(value, "RUN")
    assert said in str(caught.value)


def test_members_that_are_not_known_are_ignored_unless_they_must_not_be() -> None:
    newer = {**RUN, "gadgets": [{**GADGET, "programs": [{"any_of": [["a"]], "newer": 1}]}]}
    assert Run.from_json(newer).gadgets[0].to_json()["programs"] == [{"any_of": [["a"]]}]
    with pytest.raises(FrameError, match=r"`gadgets\[0\].programs\[0\].newer` is not a known member"):
        Run.from_json(newer, strict=True)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"agent":"a","agent":"b"}', "'agent' appears twice"),
        (b'{"boot_ns":NaN}', "NaN is not JSON"),
        (b'{"boot_ns":-Infinity}', "-Infinity is not JSON"),
        (b'{"boot_ns":1e999}', "not a whole number"),
        (b'{"boot_ns":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"boot_ns":' + b"9" * 4000 + b"}", "a number beyond 64 bits"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"can":' * 100_000, "not valid JSON"),
        (b'{"agent":"\xed\xa0\x80"}', "not valid JSON"),
        ('{"agent":"a"}'.encode("utf-16"), "not valid JSON"),
        (b"[]", "a JSON list"),
        (b"null", "a JSON null"),
    ],
)
def test_json_that_is_not_an_object_is_refused(payload: bytes, said: str) -> None:
    with pytest.raises(FrameError, match=r"^HELLO: ") as caught:
        from_agent(Frame(FrameType.HELLO, payload))
    assert said in str(caught.value)


def test_a_lone_surrogate_becomes_a_character_that_can_be_encoded() -> None:
    assert read(Hello, b'{"node":"a\\udcffb"}', "HELLO").node == "a\ufffdb"


def test_paths_keep_bytes_that_are_no_utf_8_and_have_no_nul() -> None:
    assert Library.from_json({"files": ["/a\udcff"], "functions": {}}).files == ("/a\udcff",)
    for wrong in ("\ud800", "/a\0b"):
        with pytest.raises(FrameError):
            Resolve.from_json({"slot": 0, "source": "task", "btf": wrong})


def test_types_of_frames_that_carry_no_json_or_are_newer_say_nothing() -> None:
    assert from_agent(Frame(FrameType.EVENTS, b"\xff")) is None
    assert from_agent(Frame(99, b"\xff")) is None


def test_messages_do_not_change_and_have_no_other_members() -> None:
    said = Hello(agent="1")
    with pytest.raises(AttributeError):
        said.agent = "2"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Hello(agnet="1")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Update()  # type: ignore[call-arg]
    assert (said.replace(agent="2").agent, said.agent, said.given()) == ("2", "1", {"agent"})


def test_orders_leave_out_defaults_and_answers_do_not() -> None:
    assert GadgetSpec(name="a", object=0, kind="stream", own=False).to_json() == {"name": "a", "object": 0}
    assert End(reason="error", error=Problem(what="w", why="", try_="")).to_json() == {
        "reason": "error",
        "error": {"what": "w", "why": "", "try": ""},
    }


@given(spoilt(RUN).map(as_json))
def test_any_odd_run_is_read_or_refused(payload: bytes) -> None:
    _check(Run, payload)


@given(st.sampled_from(ALL), ODD.map(as_json) | st.binary(max_size=40))
def test_any_odd_value_is_read_or_refused(cls: type[Message], payload: bytes) -> None:
    _check(cls, payload)


@given(st.sampled_from(sorted(OF_AGENTS)), st.dictionaries(st.text(max_size=9), ODD).map(as_json))
def test_any_odd_object_of_an_agent_is_read_or_refused(type: int, payload: bytes) -> None:
    _check(OF_AGENTS[type], payload)


def _check(cls: type[Any], payload: bytes) -> None:
    """Nothing else than FrameError, and what was read can be written and read again."""
    try:
        found = read(cls, payload, "X")
    except FrameError:
        return
    assert read(cls, found.to_bytes(), "X") == found


def test_stats_of_an_older_agent_are_read() -> None:
    assert Stats.from_json({"gadgets": [{"events": 7, "lost": {}}]}).gadgets[0].requests is None


@pytest.mark.parametrize("text", [b"{}", b"[]", b"0", b'""'])
def test_values_are_counted_before_memory_is_taken_for_them(text: bytes) -> None:
    payload = b'{"gadgets":[' + b",".join([text] * (1 << 20)) + b"]}"
    with pytest.raises(FrameError, match="CONTAINERS: more than 524,288 values"):
        from_agent(Frame(FrameType.CONTAINERS, payload))
    with pytest.raises(FrameError, match="STATS: more than 65,536 values"):
        from_agent(Frame(FrameType.STATS, payload))


def test_the_text_of_an_agent_never_begins_a_line() -> None:
    lie = "x\n0 events; lost: 0\r\x1b[2J\u2028y"
    payload = json.dumps({"reason": lie, "error": {"what": lie, "why": lie, "try": lie}}).encode()
    end = from_agent(Frame(FrameType.END, payload))
    assert isinstance(end, End)
    assert end.error is not None
    assert end.reason == end.error.try_ == "x\\n0 events; lost: 0\\r\\x1b[2J\\u2028y"
    assert end.error.what == end.error.why == "x\n    0 events; lost: 0\\r\\x1b[2J\\u2028y"


def test_text_for_people_is_cut() -> None:
    payload = json.dumps({"message": "\n".join(["x" * 10_000] * 1000)}).encode()
    warning = from_agent(Frame(FrameType.WARNING, payload))
    assert isinstance(warning, WarningText)
    assert len(warning.message) < 500_000


@pytest.mark.parametrize("time", [-1, 1 << 62, 18374686479800000000])
def test_times_that_no_clock_shows_are_errors(time: int) -> None:
    with pytest.raises(FrameError, match="boot_ns` is a time that no clock shows"):
        from_agent(Frame(FrameType.PONG, json.dumps({"boot_ns": time, "realtime_ns": 1}).encode()))
    if time > 0:
        with pytest.raises(FrameError, match="complete until"):
            split_events(EventsHeader(0, 0, time).encode())
