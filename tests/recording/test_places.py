"""Recordings in object stores, written to and read from servers that speak S3, Azure's and Google's protocols."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import from_url

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.recording import layout, places, writer
from kubectl_gadget.recording.layout import file_header
from kubectl_gadget.recording.places import ObjectUrl, StoredObjects, create, place_of, places_of
from kubectl_gadget.recording.reader import RecordedIntake, RecordingReader
from kubectl_gadget.recording.replay_run import open_recordings
from kubectl_gadget.recording.writer import RecordingWriter, Ring, Rotation
from tests.gadget_run import GADGET
from tests.recording import object_servers
from tests.recording.files import META, read, write
from tests.recording.test_segments import everything, known, record


@pytest.fixture(scope="module", params=["s3", "gs", "az"])
def scheme(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The scheme of a server's URLs. The environment says where it is."""
    folder = tmp_path_factory.mktemp("server")
    server = object_servers.azure(folder) if request.param == "az" else object_servers.s3()
    with server as url, pytest.MonkeyPatch.context() as patch:
        for name, value in object_servers.environment(request.param, url, folder).items():
            patch.setenv(name, value)
        yield request.param


@pytest.fixture
def url(scheme: str, request: pytest.FixtureRequest) -> str:
    """The URL of a recording that does not exist yet."""
    return f"{scheme}://bucket/tests/{abs(hash(request.node.nodeid)):x}/a.kgr"


pytestmark = pytest.mark.network


def copied(path: Path, url: str) -> None:
    """Puts a file's segments into an object store."""
    to = create(place_of(url))
    with RecordingReader(path) as reader:
        for place in reader.segment_places(reader.damage):
            place.file.seek(place.offset - layout.SEGMENT_BYTES)
            to.write(place.file.read(layout.SEGMENT_BYTES + place.header.stored))


def objects(url: str) -> list[str]:
    return sorted(item["path"] for page in obstore.list(from_url(url)) for item in page)


def steps(*urls: str, **part: int) -> tuple[list[RecordedIntake], RecordingReader]:
    with RecordingReader(*places_of(urls)) as reader:
        return list(reader.steps(**part)), reader


def test_a_recording_that_is_opened_is_listed_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place_of(url), 3)
    listed, names = list[object](), places.Store.names

    def counted(self: places.Store) -> Iterator[tuple[str, int]]:
        listed.append(self)
        return names(self)

    monkeypatch.setattr(places.Store, "names", counted)
    with ExitStack() as stack:
        (reader,) = open_recordings(stack, places_of([url]))
        assert list(reader.steps())
    assert len(listed) == 1


def test_what_was_written_is_read_and_all_objects_together_are_a_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1000)
    made = write(place_of(url), 30)
    assert steps(url)[0] == made
    assert len(objects(url)) > 5
    together = b"".join(obstore.get(from_url(url), name).bytes() for name in objects(url))
    (tmp_path / "a.kgr").write_bytes(together)
    assert read(tmp_path / "a.kgr") == made
    with pytest.raises(UsageError, match="the recording exists"):
        write(place_of(url))


def test_a_part_asks_only_for_its_own_objects(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1)
    monkeypatch.setattr(writer, "STATE_SHARE", 0)
    monkeypatch.setattr(places, "AHEAD", 1)
    record(place_of(url), 40)
    asked = list[str]()
    real = places.Store.get

    def get(store: places.Store, name: str, size: int) -> bytes:
        asked.append(name)
        return real(store, name, size)

    monkeypatch.setattr(places.Store, "get", get)
    found, _ = steps(url, since_ns=38_000_000_000)
    assert known(found)[:3] == everything(40)
    assert known(found)[3] == 2
    assert len(set(asked)) < 15, asked


def test_objects_that_are_missing_changed_or_foreign_lose_themselves_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1)
    record(place_of(url))
    store, names = from_url(url), objects(url)
    whole, _ = steps(url)
    obstore.delete(store, [names[5]])
    obstore.put(store, names[9], b"\xff" * 100)
    obstore.put(store, "notes.txt", b"hello")
    obstore.put(store, "segment-000000000003-zz", b"hello")
    header = layout.SegmentHeader(7, 0, 0, 2, 1 << 26, 1 << 26, 1 << 27, 1 << 27, 0, 0)
    obstore.put(store, f"segment-000000000007-{header.encode().hex()}", b"short")
    found, reader = steps(url)
    assert known(found)[:3] == known(whole)[:3]
    assert known(found)[3] < known(whole)[3]
    assert reader.damage.segments


def test_rotated_recordings_are_removed_and_a_ring_is_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FULL_SEGMENT_BYTES", 1)
    to = RecordingWriter(place_of(url), META, print, Rotation(bytes=2000, keep=2))
    for number in range(60):
        to.step(number, number, [])
    assert to.close({"seconds": 60})
    pattern = url.replace("a.kgr", "a-*.kgr")
    assert len(places_of([pattern])) == 2
    found, reader = steps(pattern)
    assert found[-1].now_ns == 59
    assert reader.end == {"seconds": 60}
    with pytest.raises(UsageError, match="exists"):
        RecordingWriter(place_of(url), META, print, Rotation(bytes=2000))
    other = url.replace("a.kgr", "b.kgr")
    ring = RecordingWriter(place_of(other), META, print, ring=Ring(10, 1 << 20, 0, 3))
    ring.step(1, 1, [])
    ring.keep("a test")
    ring.step(2, 2, [])
    ring.close({})
    found, reader = steps(other.replace("b.kgr", "b-000001.kgr"))
    assert reader.end == {"kept": "a test"}
    assert [step.now_ns for step in found][:1] == [1]


@pytest.mark.parametrize("moment", range(2))
def test_a_client_that_is_killed_leaves_what_reads(url: str, moment: int) -> None:
    code = (
        "import sys; from kubectl_gadget.recording import writer\n"
        "from kubectl_gadget.recording.places import place_of\n"
        "from tests.recording.files import META, frame\n"
        "writer.FULL_SEGMENT_BYTES = 2000\n"
        "to = writer.RecordingWriter(place_of(sys.argv[1]), META, print)\n"
        "n = 0\n"
        "while True:\n"
        "    to.step(n, n, [frame(f'{n}:' + 'x' * 300)]); n += 1\n"
        "    while to._waiting_bytes > 10000: pass\n"
        "    if n % 20 == 0: print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(8 + random.Random(moment).randrange(8)):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    found, reader = steps(url)
    numbers = [int(step.frames[0].payload.partition(b":")[0]) for step in found]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 20
    assert not reader.damage.segments
    assert reader.end is None


@pytest.mark.usefixtures("catalogue_built")
def test_the_commands_read_urls(url: str, tmp_path: Path) -> None:
    from tests.analysis.recordings import opens

    opens(tmp_path / "a.kgr", 4000)
    copied(tmp_path / "a.kgr", url)

    def run(*words: str) -> str:
        done = subprocess.run([*GADGET, *words], check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    file = str(tmp_path / "a.kgr")
    assert run("replay", url, "-o", "json") == run("replay", file, "-o", "json")
    assert run("recording", "info", url) == run("recording", "info", file).replace(file, url)
    assert run("recording", "query", url, "select count(*) as n from open", "-o", "csv") == "n\n4000\n"
    models = []
    for number, source in enumerate((url, file)):
        run("report", source, "-o", str(tmp_path / f"{number}.json"))
        models.append(json.loads((tmp_path / f"{number}.json").read_text().replace(source, "THE RECORDING")))
    assert models[0] == models[1]
    assert models[0]["run"]["rows"] == 4000
    run("recording", "redact", url, str(tmp_path / "b.kgr"))
    run("recording", "convert", url, "-o", "parquet", str(tmp_path / "lake"))


def test_what_is_not_there_is_said_in_words(scheme: str) -> None:
    with pytest.raises(UsageError, match="there is no recording"):
        RecordingReader(place_of(f"{scheme}://bucket/none.kgr"))
    with pytest.raises(UsageError, match="no recording has such a name"):
        places_of([f"{scheme}://bucket/none-*.kgr"])
    with pytest.raises(GadgetError) as found:
        create(place_of(f"{scheme}://no-such-bucket/none.kgr"))
    assert "no such bucket" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.bpf
def test_a_run_is_recorded_there(url: str) -> None:
    # Other tests flood this machine, and nothing may be lost.
    room = ("--ring-size", "32Mi")
    run = [*GADGET, "record", "--local", "--host", "-o", url, "--for", "files", "--timeout", "2s", *room]
    done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"kubectl gadget replay {url} shows it again" in done.stderr
    shown = subprocess.run([*GADGET, "recording", "info", url], check=False, capture_output=True, text=True)
    assert "missing  nothing" in shown.stdout, shown.stdout + shown.stderr


# Reads of objects that change or fail meanwhile, from a store in a folder.


pytest.importorskip("obstore")
NAME = f"segment-{0:012}-{'00' * places.SEGMENT_BYTES}"
BEGIN = len(file_header())


def stored(folder: Path, content: bytes) -> StoredObjects:
    """A recording with one segment whose header says nothing."""
    (folder / "a.kgr").mkdir()
    (folder / "a.kgr" / "recording").write_bytes(file_header())
    (folder / "a.kgr" / NAME).write_bytes(content)
    return StoredObjects(ObjectUrl(f"file://{folder}", "a.kgr"))


def test_an_object_that_has_become_larger_is_not_read(tmp_path: Path) -> None:
    made = stored(tmp_path, b"content")
    (tmp_path / "a.kgr" / NAME).write_bytes(b"content" * 1000)
    made.seek(BEGIN)
    assert made.read(100) == bytes(7)
    made.close()


def test_what_is_read_ahead_fails_early_and_is_tried_again_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real, asked = stored(tmp_path, b"content"), places.Store.get, list[Mapping[str, Any]]()
    retries = {id(made._store): places.RETRIES, id(made._store_ahead): places.RETRIES_AHEAD}

    def get(store: places.Store, name: str, size: int) -> bytes:
        asked.append(retries[id(store)])
        if len(asked) == 1:
            raise GadgetError("503 Slow Down")
        return real(store, name, size)

    monkeypatch.setattr(places.Store, "get", get)
    made.seek(BEGIN)
    assert made.read(100) == b"content"
    made.seek(BEGIN)
    assert made.read(100) == b"content"
    assert asked == [places.RETRIES_AHEAD, places.RETRIES]
    made.close()
