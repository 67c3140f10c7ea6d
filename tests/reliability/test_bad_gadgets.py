"""What gadgets are made into, spoilt: types of an object, the schema made of them, the object itself.

Each is taken, or refused in words. The kernel and libbpf read an object, and what goes wrong in there may end the whole
process; so each one is tried in a process of its own.
"""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.session.session import Session
from kubectl_gadget.cli.gadgets import gadget_command
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import compiler, load_own
from kubectl_gadget.gadgets.btf_layout import BtfLayout
from kubectl_gadget.gadgets.load import load_gadget, load_index, object_bytes, read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.members import check_readable
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run import request
from kubectl_gadget.run.run_options import GadgetRun
from kubectl_gadget.wire.frames import Frame, FrameType
from tests.examples import examples
from tests.gadget_run import GADGET
from tests.rows.records import OPEN, record, ring
from tests.spoilt import altered, as_json, spoilt

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "trace_chmod"
MACHINE = os.uname().machine
many = settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
needs_tools = pytest.mark.skipif(
    compiler.find_clang() is None or not shutil.which("bpftool"), reason="needs clang and bpftool"
)

INT = {"id": 1, "kind": "INT", "name": "int", "size": 4, "encoding": "SIGNED"}
HEAD = {"id": 2, "kind": "STRUCT", "name": "gadget_record", "size": 4, "members": []}


def types(*members: dict[str, Any], more: list[dict[str, Any]] | None = None, size: int = 12) -> list[Any]:
    """Those of an object with a record of these members."""
    head = {"name": "record", "type_id": 2, "bits_offset": 0}
    whole = {"id": 3, "kind": "STRUCT", "name": "trace_x", "size": size, "members": [head, *members]}
    return [INT, HEAD, whole, *(more or [])]


WHOLE = types(
    {"name": "a", "type_id": 1, "bits_offset": 32},
    {"name": "b", "type_id": 5, "bits_offset": 64},
    more=[
        {"id": 4, "kind": "TYPEDEF", "name": "gadget_errno", "type_id": 1},
        {"id": 5, "kind": "ARRAY", "name": "(anon)", "type_id": 4, "index_type_id": 1, "nr_elems": 1},
        {"id": 6, "kind": "VAR", "name": "one", "type_id": 1, "linkage": "global"},
        {"id": 7, "kind": "DATASEC", "name": ".rodata", "size": 4, "vars": [{"type_id": 6, "offset": 0, "size": 4}]},
        {"id": 8, "kind": "FUNC", "name": "program", "type_id": 1, "linkage": "global"},
    ],
)


@contextmanager
def words_about(source: str) -> Iterator[None]:
    """A refusal in the block is fine when it names this."""
    said = source
    try:
        yield
    except GadgetError as error:
        said = str(error)
    assert source in said


def read_layout(found: Any) -> None:
    """What a build asks of an object's types; or UsageError."""
    with words_about("x.bpf.c"):
        layout = BtfLayout(found, "x.bpf.c")
        layout.record("trace_x")
        layout.globals()
        layout.functions()


@given(spoilt(WHOLE) | altered(WHOLE))
@example(types({"name": "a", "type_id": 3, "bits_offset": 32}))  # a struct that contains itself
@example(types({"name": "a", "type_id": 4, "bits_offset": 32}, more=[{"id": 4, "kind": "TYPEDEF", "type_id": 4}]))
@example(types({"name": "a", "type_id": 9, "bits_offset": 32}))
@example(types({"name": "a", "type_id": 1, "bits_offset": None}))
@example([{"kind": "INT"}])
@example([{"id": []}])
@example([{"id": 1, "kind": "STRUCT", "name": "trace_x", "size": 4, "members": None}])
@settings(many, max_examples=examples(200))
def test_spoilt_types_of_an_object_are_read_or_refused_in_words(found: Any) -> None:
    read_layout(found)


@given(st.text(max_size=40) | st.sampled_from(["[" * 5000, "{}", '{"types":1}', "null", "", '{"types":[null]}']))
@many
def test_whatever_bpftool_says_is_read_or_refused_in_words(said: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "_run", lambda _command, _what: said)
        patch.setattr(compiler, "bpftool", lambda: "bpftool")
        with words_about("x.bpf.o"):
            read_layout(compiler.read_types(Path("x.bpf.o")))


def use(gadget: Gadget) -> None:
    """All that a run does with a schema, on a record that may be of another gadget."""
    gadget_command(gadget, "x")
    request.build([GadgetRun(gadget, {}, None)], [{}], 1 << 16)
    batch = decode(gadget, "node", ring(record(cgroup=7, resolved=[b"a"], args=[b"x"]), record()))
    batch.name_owners(Identity("node").lookup)
    for format in ("table", "wide", "json"):
        stream = io.StringIO()
        terminal = Terminal(lambda: 100, color=False)
        sink = make_sink(OutputOptions(format=format), (gadget,), stream, terminal=terminal)
        sink.start()
        sink.write(Rows([batch]))
        sink.close()


SCHEMA = json.loads(json.dumps(OPEN.to_json()))


def with_column(**other: Any) -> dict[str, Any]:
    """The schema, with its last column changed."""
    return SCHEMA | {"columns": [*SCHEMA["columns"][:-1], SCHEMA["columns"][-1] | other]}


def with_field(number: int, **other: Any) -> dict[str, Any]:
    """The schema, with one field changed."""
    fields = list(SCHEMA["record"]["fields"])
    fields[number] = fields[number] | other
    return SCHEMA | {"record": SCHEMA["record"] | {"fields": fields}}


def with_globals(globals: Any) -> dict[str, Any]:
    """The schema with other globals."""
    return SCHEMA | {"agent": SCHEMA["agent"] | {"globals": globals}}


@given(spoilt(SCHEMA) | altered(SCHEMA))
@example(with_column(width=1 << 62))  # filled all memory with blanks
@example(with_column(name="%d"))  # JSON rows are made by a template
@example(with_column(name="timestamp"))
@example(with_field(0, size=7))
@example(with_field(0, offset=-8))
@example(with_field(1, type="__u64"))  # a record of nobody
@example(with_field(2, type="char[4]"))
@example(with_field(16, size=64))
@example(SCHEMA | {"command": []})
@example(with_globals([]))
@example(with_globals(SCHEMA["agent"]["globals"] | {"gadget_filter_pid": {"offset": 0, "size": -1}}))
@settings(many, max_examples=examples(60))
def test_a_spoilt_schema_is_used_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "trace_something.json"
    path.write_bytes(as_json(value))
    gadget = None
    with words_about(str(path)):
        read = read_gadget(path)
        check_readable(read, str(path))
        gadget = read
    if gadget is not None:
        with suppress(GadgetError):  # the record above is not of this one, or a flag is taken
            use(gadget)


@pytest.mark.usefixtures("catalogue_built")
def test_every_gadget_of_ours_can_be_read() -> None:
    for entry in load_index():
        check_readable(load_gadget(entry.name), entry.name)


TAKEN, REFUSED, FAULT = 0, 3, 4
"""How a process ended that took one object."""


def outcome_of(elf: bytes, gadget: dict[str, Any], containers: Containers) -> tuple[int, str]:
    """A session's outcome with this object, in a child; and what it said."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = FAULT
        try:
            signal.alarm(120)
            session = Session(os.pipe()[0], os.open(os.devnull, os.O_WRONLY))
            session.containers = containers
            session.objects.append(elf)
            session.handle(Frame(FrameType.RUN, as_json({"gadgets": [{"object": 0, **gadget}], "filter": {}})))
            code = TAKEN
        except GadgetError as error:
            os.write(writer, str(error).encode()[:4096])
            code = REFUSED
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4096:])
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


@st.composite
def spoilt_bytes(draw: st.DrawFn, size: int) -> list[tuple[int, bytes]]:
    """What to write where; an empty text cuts the rest off."""
    kinds = st.sampled_from([b"\xff", b"\0", b"\x7f", b"\x80"]).flatmap(lambda one: st.integers(1, 8).map(one.__mul__))
    return draw(st.lists(st.tuples(st.integers(0, size - 1), kinds | st.binary(max_size=16)), min_size=1, max_size=4))


def applied(elf: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    for place, text in changes:
        elf = elf[:place] + text + elf[place + len(text) :] if text else elf[:place]
    return elf


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    containers = Containers()
    yield containers
    containers.close()


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.parametrize("name", ["trace_open", "trace_signal"])
def test_a_spoilt_object_is_taken_or_refused_in_words(name: str, containers: Containers) -> None:
    elf = object_bytes(name, MACHINE)
    (entry,) = request.build([GadgetRun(load_gadget(name), {}, None)], [{}], 1 << 16).gadgets
    assert outcome_of(elf, entry.to_json(), containers) == (TAKEN, "")
    refused = []

    @given(spoilt_bytes(len(elf)))
    @settings(many, max_examples=examples(40))
    def each(changes: list[tuple[int, bytes]]) -> None:
        code, said = outcome_of(applied(elf, changes), entry.to_json(), containers)
        assert code in (TAKEN, REFUSED), said
        if code == REFUSED:
            refused.append(said)

    each()
    assert refused
    assert all(refused)


@pytest.fixture(scope="module")
def example_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of docs/writing-gadgets.md as it is handed on to people who have no compiler."""
    folder = tmp_path_factory.mktemp("gadget") / "trace_chmod"
    shutil.copytree(EXAMPLE, folder)
    load_own(folder)
    (folder / "trace_chmod.bpf.c").unlink()
    return folder


def cut(elf: bytes) -> bytes:
    return elf[: len(elf) // 2]


def without_btf(elf: bytes) -> bytes:
    return elf.replace(b"\x9f\xeb\x01\0", bytes(4))


def other_instructions(elf: bytes) -> bytes:
    place = elf.index(b"\x7fELF") + 64
    return elf[:place] + random.Random(1).randbytes(256) + elf[place + 256 :]


def section_that_is_no_text(elf: bytes) -> bytes:
    found = elf.replace(b"tracepoint/", b"\xffracepoint/")
    assert found != elf
    return found


def no_elf(elf: bytes) -> bytes:
    return b"#!/bin/sh\n\x1b[2J"


def nothing(elf: bytes) -> bytes:
    return b""


@pytest.mark.bpf
@needs_tools
@pytest.mark.parametrize("spoil", [cut, without_btf, other_instructions, section_that_is_no_text, no_elf, nothing])
def test_a_gadget_of_ones_own_with_a_spoilt_object_is_refused_in_words(
    spoil: Any, example_built: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trace_chmod"
    shutil.copytree(example_built, folder)
    path = folder / "built" / "objects" / MACHINE / "trace_chmod.bpf.o"
    path.write_bytes(spoil(path.read_bytes()))
    words = ["run", str(folder), "--local", "--host", "--timeout", "1s"]
    done = subprocess.run([*GADGET, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "error: " in done.stderr
    for never in ("Traceback", "internal error", "\x1b"):
        assert never not in done.stderr
    assert done.stdout == ""
