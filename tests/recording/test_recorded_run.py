"""What a replay makes of a recording's META and of what was typed, and what stands in a backlog as frames and back."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import FrameError, UsageError
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.gadgets.load import load_index
from kubectl_gadget.recording import places
from kubectl_gadget.recording.recorded_frames import from_frame, to_frame
from kubectl_gadget.recording.recorded_run import RecordedRun, applied
from kubectl_gadget.recording.recorder import Recorder, RecordingOptions, meta_of
from kubectl_gadget.run.backlog import Content, Detached, Events, RoundTrip, Selected
from kubectl_gadget.run.coverage import Coverage, Gap
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import Frame

pytestmark = pytest.mark.usefixtures("catalogue_built")


def run(name: str, **parameters: object) -> GadgetRun:
    return GadgetRun(load_gadget(name), parameters)


def recorded(*runs: GadgetRun, **options: Any) -> RecordedRun:
    """As it is read from a file."""
    return RecordedRun.from_meta(json.loads(json.dumps(meta_of(RunOptions(runs, **options)))), "a.kgr")


def test_gadgets_come_back_with_their_parameters_and_the_command_that_shows_them() -> None:
    found = recorded(run("trace_exec"), run("trace_open", failed=True))
    assert found.command == ("trace", "exec+open")
    assert [item.gadget for item in found.gadgets] == [load_gadget("trace_exec"), load_gadget("trace_open")]
    options, notes = applied(RunOptions((run("trace_open"),)), found)
    assert options.gadgets[0].parameters == {"failed": True}
    assert found.places(options.gadgets) == {1: 0}
    assert notes == []


def test_a_gadget_that_was_not_recorded_is_refused_and_left_out_of_a_recipe() -> None:
    found = recorded(run("trace_tcp"), local=True)
    with pytest.raises(UsageError, match="no events of trace open") as caught:
        applied(RunOptions((run("trace_open"),)), found)
    assert "trace tcp" in str(caught.value.remedy)
    recipe = RunOptions((run("trace_tcp"), run("trace_udp")), make_sink=lambda *_: None)  # type: ignore[arg-type, return-value]
    options, notes = applied(recipe, found)
    assert [item.gadget.name for item in options.gadgets] == ["trace_tcp"]
    assert notes == ["not in the recording, so not shown: trace udp"]


def test_a_parameter_that_would_have_worked_on_the_node_is_refused() -> None:
    found = recorded(run("trace_open", failed=True))
    applied(RunOptions((run("trace_open", failed=True),)), found)
    with pytest.raises(UsageError, match="another value of --failed"):
        applied(RunOptions((run("trace_open", failed=False),)), found)


def test_a_flag_that_only_selects_rows_is_a_filter_of_the_replay() -> None:
    found = recorded(run("trace_open"), run("trace_file"))
    options, notes = applied(RunOptions((run("trace_open", failed=True, comm="cat", path="/etc"),)), found)
    (shown,) = options.gadgets
    assert shown.parameters == {}
    assert shown.only is not None
    assert shown.only.text == '(errno != 0) && (comm == "cat") && (path.startsWith("/etc"))'
    assert notes == []
    assert "lacks reads" in applied(RunOptions((run("trace_file", failed=True),)), found)[1][0]
    for parameter, value in (("write", True), ("resolve", True)):
        with pytest.raises(UsageError, match=f"another value of --{parameter}"):
            applied(RunOptions((run("trace_open", **{parameter: value}),)), found)


def test_a_recording_of_one_port_or_process_is_not_a_recording_of_another() -> None:
    found = recorded(run("trace_tcp", port=80))
    assert applied(RunOptions((run("trace_tcp", port=80, failed=True),)), found)[0].gadgets[0].parameters == {
        "port": 80
    }
    with pytest.raises(UsageError, match="another value of --port"):
        applied(RunOptions((run("trace_tcp", port=443),)), found)


def test_a_flag_that_fills_columns_shows_them_in_a_replay() -> None:
    found = recorded(run("trace_exec"))
    shown = [
        applied(RunOptions((run("trace_exec", **given),)), found)[0].gadgets[0] for given in ({}, {"failed": True})
    ]
    assert [item.gadget.column("failed_on").show for item in shown] == ["wide", "default"]


def test_execs_are_shown_from_a_recording_of_processes_which_says_what_it_lacks() -> None:
    found = recorded(run("trace_process"), run("trace_open"))
    options, notes = applied(RunOptions((run("trace_exec", pid=7), run("trace_open"))), found)
    first, second = options.gadgets
    assert (first.gadget.command, first.gadget.name, second.gadget.name) == (
        ("trace", "exec"),
        "trace_process",
        "trace_open",
    )
    assert first.only is not None
    assert first.only.text == '(operation == "exec") && (pid == 7)'
    names = {column.name for column in first.gadget.columns}
    assert {"pid", "args", "exe", "cwd"} <= names
    assert names.isdisjoint(("errno", "exec_id"))
    assert notes == [
        "trace exec is shown from trace process, which lacks attempts that failed; it has what the container runtime "
        "executes"
    ]
    assert found.places(options.gadgets) == {0: 0, 1: 1}
    with pytest.raises(UsageError, match="trace exec --failed needs what the recording of trace process does not have"):
        applied(RunOptions((run("trace_exec", failed=True),)), found)
    with pytest.raises(UsageError, match="trace exit was not recorded, and trace process is shown by another gadget"):
        applied(RunOptions((run("trace_exec"), run("trace_exit"))), found)
    assert applied(RunOptions((run("trace_exit", failed=True),)), found)[0].gadgets[0].only is not None


def test_each_filter_that_stands_for_a_flag_can_be_compiled() -> None:
    seen = 0
    for gadget in map(load_gadget, (entry.name for entry in load_index())):
        for parameter in gadget.parameters:
            if parameter.rows:
                compile_filter(parameter.rows.replace("VALUE", "1"), [gadget])
                seen += 1
        if gadget.within is not None:
            compile_filter(gadget.within.rows, [load_gadget(gadget.within.gadget)])
            seen += 1
    assert seen > 20


def test_a_filter_of_the_run_is_mentioned_unless_it_is_the_replays_own() -> None:
    found = recorded(run("trace_open"), filter="pid == 1")
    assert "'pid == 1'" in applied(RunOptions((run("trace_open"),)), found)[1][0]
    assert applied(RunOptions((run("trace_open"),), filter="pid == 1"), found)[1] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


MEMBERS = st.sampled_from(["command", "gadgets", "interval", "began_ns", "filter", "x"])


@given(st.dictionaries(MEMBERS, JSON, max_size=6))
def test_hostile_meta_is_refused_in_words(meta: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"a\.kgr"):
        RecordedRun.from_meta(meta, "a.kgr")


def test_descriptions_that_were_changed_are_refused_in_words() -> None:
    whole = json.loads(json.dumps(meta_of(RunOptions((run("trace_open"),)))))
    for name in list(whole["gadgets"][0]["description"]):
        spoilt = json.loads(json.dumps(whole))
        spoilt["gadgets"][0]["description"][name] = {"x": [1]}
        with pytest.raises(UsageError, match=r"a\.kgr"):
            RecordedRun.from_meta(spoilt, "a.kgr")


@pytest.mark.parametrize(
    "content",
    [
        Events(b"\x00" * 24 + b"rows"),
        Detached(),
        Gap(25.103, 7),
        RoundTrip(1, 2, 3, 4),
        Selected(FilterSpec.from_json({"namespaces": ["a"], "host": True})),
        Hello.from_json({"agent": "1", "architecture": "x86_64", "boot_ns": 1, "realtime_ns": 2}),
        Started.from_json({"boot_ns": 1, "realtime_ns": 2}),
        Stats.from_json({"boot_ns": 1, "realtime_ns": 2}),
        ContainerChanges.from_json({"cgroups": {"7": None}, "removed": [8]}),
        StackNames.from_json({"gadget": 0, "first": 0, "frames": [], "stacks": {}}),
    ],
)
def test_what_stands_in_a_backlog_is_a_frame_and_back(content: Content) -> None:
    assert from_frame(to_frame(content)) == content


@given(st.integers(-128, 127), st.binary(max_size=40) | st.builds(lambda value: json.dumps(value).encode(), JSON))
def test_hostile_frames_are_wrong_or_mean_something(type: int, payload: bytes) -> None:
    try:
        from_frame(Frame(type, payload))
    except FrameError:
        return


@pytest.mark.parametrize(("is_all", "full", "fails"), [(True, True, True), (False, True, False), (True, False, False)])
def test_a_run_that_shows_nothing_fails_with_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_all: bool, full: bool, fails: bool
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if full:
        monkeypatch.setattr(places.os, "write", no_room)
    runs = (GadgetRun(load_gadget("trace_open")),)
    recorder = Recorder(RecordingOptions(tmp_path / "a.kgr", is_all=is_all), RunOptions(runs, local=True))
    said, stopped = list[str](), list[bool]()
    recorder.create(said.append)
    recorder.close({}, Coverage())
    recorder.stop_with(lambda: stopped.append(True))
    assert recorder.has_failed == fails == bool(stopped)
    assert [("The run ends" if is_all else "The run continues") in text for text in said] == [True] * full
