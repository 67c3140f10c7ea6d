"""Recordings that anybody may have made cost little time and memory, and end with words (docs/recording.md, Safety)."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from kubectl_gadget.kube.informer import Follower
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.layout import DamagedError, RecordKind
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_objects import KINDS, ReplayedObjects
from kubectl_gadget.recording.segments import RunState, object_pieces
from tests import bounded
from tests.gadget_run import GADGET
from tests.recording import bombs

CPU_SECONDS = 40.0
"""Most take 1 to 5 s; machines differ."""
COMMANDS = {
    "replay": ("replay", "FILE"),
    "flows": ("replay", "FILE", "flows"),
    "info": ("recording", "info", "FILE"),
    "redact": ("recording", "redact", "FILE", "OUT"),
    "jsonl": ("recording", "convert", "FILE", "-o", "jsonl", "OUT"),
    "perfetto": ("recording", "convert", "FILE", "-o", "perfetto", "OUT"),
}
OTHERS = [
    *(("info", bomb) for bomb in (bombs.values, bombs.cgroups_of_nodes, bombs.steps, bombs.marks, bombs.lines)),
    *(("redact", bomb) for bomb in (bombs.nested, bombs.values, bombs.containers, bombs.events)),
    *(("jsonl", bomb) for bomb in (bombs.uneven_events, bombs.times)),
    *(("perfetto", bomb) for bomb in (bombs.times, bombs.blocks)),
]


def ended(folder: Path, words: Iterable[str], bomb: Callable[[], Iterable[bytes]]) -> bounded.Ended:
    file = folder / "bomb.kgr"
    bombs.write(file, bomb)
    places = {"FILE": str(file), "OUT": str(folder / "out")}
    found = bounded.run([places.get(word, word) for word in words])
    assert found.megabytes < bounded.MEGABYTES, found
    assert found.seconds < CPU_SECONDS, found
    assert found.code in (0, 1, 2), found
    for text in ("Traceback", "internal error", "MemoryError", "Error("):
        assert text not in found.err.replace("ValueError(", ""), found.err
    return found


@pytest.mark.parametrize("bomb", bombs.BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_replay_of_a_bomb_ends(tmp_path: Path, bomb: Callable[[], Iterable[bytes]]) -> None:
    ended(tmp_path, COMMANDS["replay"], bomb)


@pytest.mark.parametrize(("command", "bomb"), OTHERS, ids=lambda one: getattr(one, "__name__", one))
def test_so_do_other_commands(tmp_path: Path, command: str, bomb: Callable[[], Iterable[bytes]]) -> None:
    ended(tmp_path, COMMANDS[command], bomb)


@pytest.mark.parametrize("bomb", [bombs.changes, bombs.values_of_objects], ids=lambda bomb: bomb.__name__)
def test_so_do_views_of_the_clusters_objects(tmp_path: Path, bomb: Callable[[], Iterable[bytes]]) -> None:
    ended(tmp_path, COMMANDS["flows"], bomb)


def test_names_in_a_recording_do_not_look_like_lines_of_the_client(tmp_path: Path) -> None:
    said = ended(tmp_path, COMMANDS["replay"], bombs.lines).err
    assert not [line for line in said.splitlines() if line.startswith("42 events")]
    assert "\x1b" not in said


def test_sigterm_ends_a_replay_within_seconds(tmp_path: Path) -> None:
    bombs.write(tmp_path / "bomb.kgr", bombs.steps)
    words = [*GADGET, "replay", str(tmp_path / "bomb.kgr"), "--speed", "0.0001"]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        time.sleep(3)  # also if it is still starting, it has to end
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) in (143, -signal.SIGTERM)
        finally:
            process.kill()  # also if it does not end


def test_views_look_at_objects_as_often_as_a_file_of_this_size_may_ask_for() -> None:
    looks = []
    follower = Follower(KINDS, lambda found: looks.append(sum(map(len, found.values()))), 1.0)
    known = {"kinds": {"pods": {"put": [{"metadata": {"uid": str(one)}} for one in range(10_000)]}}}
    change = layout.to_json({"kinds": {"pods": {"put": [{"metadata": {"uid": "1"}}]}}})
    objects = ReplayedObjects([follower], stored=1000)
    objects.apply([layout.to_json(known)])
    for _ in range(5_000):
        objects.apply([change])
    assert sum(looks) < 20_000_000
    assert len(looks) > 500, "a cluster that changes now and then is seen as it was"


def test_objects_beyond_the_limit_are_not_kept() -> None:
    objects = ReplayedObjects([Follower(KINDS, lambda found: None, 1.0)])
    for number in range(37):
        objects.apply([_pod(number)])
    with pytest.raises(DamagedError, match="more than 1,500,000 values"):
        objects.apply([_pod(37)])
    objects.apply([_pod(5)])  # which it knows


def _pod(number: int) -> bytes:
    """A change that adds a pod with 40,000 values."""
    labels = {f"{number}.{one}": "" for one in range(20_000)}
    return layout.to_json({"kinds": {"pods": {"put": [{"metadata": {"uid": str(number), "labels": labels}}]}}})


def test_many_objects_are_written_in_pieces_that_mean_the_same() -> None:
    pods = [{"metadata": {"uid": str(one)}} for one in range(2500)]
    whole = {"all": True, "kinds": {"pods": {"put": pods, "gone": ["x"]}, "nodes": {"put": pods[:1]}}}
    pieces = list(object_pieces(whole))
    assert [len(piece["kinds"].get("pods", {}).get("put", ())) for piece in pieces] == [0, 1000, 1000, 500]
    assert [piece.get("all") for piece in pieces] == [True, None, None, None]
    state = RunState()
    step = layout.step_record(1, 2)
    state.apply(step + b"".join(layout.record(RecordKind.OBJECTS, layout.to_json(piece)) for piece in pieces))
    again = RunState()
    again.apply(state.encode())
    assert again.encode() == state.encode()


def test_a_recording_of_more_nodes_than_a_cluster_has_is_damaged(tmp_path: Path) -> None:
    bombs.write(tmp_path / "a.kgr", bombs.nodes)
    with RecordingReader(tmp_path / "a.kgr") as reader:
        assert len({frame.node for step in reader.steps() for frame in step.frames}) <= 10_000
        assert list(reader.damage.reasons) == ["the recording has more than 10,000 nodes"]
