"""A user's own gadget: the example of docs/writing-gadgets.md, built, and run in this kernel."""

import os
import re
import shutil
from pathlib import Path

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets import load_own, object_bytes, own
from kubectl_gadget.gadgets.compiler import find_clang
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.members import row_members
from tests.bpf.tracer import MACHINE, Tracer

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "trace_chmod"
TIMES = 13

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(find_clang() is None or not shutil.which("bpftool"), reason="needs clang and bpftool"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example, in a folder of the user's."""
    folder = tmp_path / "my gadget"
    folder.mkdir()
    for name in ("trace_chmod.yaml", "trace_chmod.bpf.c"):
        shutil.copy(EXAMPLE / name, folder)
    return folder


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
def test_the_example_shows_what_it_promises(folder: Path, tmp_path: Path) -> None:
    gadget, built = load_own(folder)
    file = tmp_path / "file"
    file.touch()
    with Tracer(gadget.name, built=built, pid=os.getpid()) as tracer:
        for mode in range(TIMES):
            os.chmod(file, mode)
        with pytest.raises(FileNotFoundError):
            os.chmod(tmp_path / "none", 0o600)
        records = tracer.records()
    assert [(record["path"], record["mode"], record["errno"]) for record in records] == [
        *((str(file), mode, 0) for mode in range(TIMES)),
        (str(tmp_path / "none"), 0o600, 2),
    ]


NAMES = """
#include <gadget/network/address.h>
#include <gadget/output.h>
#include <gadget/process.h>
#include <gadget/syscall.h>
#include <kernel/tracepoint.h>

enum parity { PARITY_ODD = 1, PARITY_EVEN_NUMBER = 2 };

struct trace_dup {
	struct gadget_record record;
	gadget_ip peer;
	enum parity parity;
	__u32 bits;
};

GADGET_RECORD(trace_dup);
GADGET_SCRATCH(scratch, sizeof(struct trace_dup));

SEC("tracepoint/syscalls/sys_exit_dup2")
int dup2_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct trace_dup *row = gadget_scratch(&scratch);
	__u32 fd = gadget_argument(gadget_registers(gadget_task()), 1);

	if (!row || !gadget_begin(&row->record))
		return 0;
	gadget_ip_from_v4(row->peer, bpf_htonl(0x0A000001));
	row->parity = fd == 250 ? 0 : fd % 2 ? PARITY_ODD : PARITY_EVEN_NUMBER;
	row->bits = fd;
	gadget_emit(&row->record, sizeof(*row), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
NAMES_YAML = """
command: trace dup
group: own
summary: Descriptors
record: trace_dup
programs: [any_of: [[dup2_exit]]]
columns:
  - {name: parity, description: what it is}
  - {name: bits, description: its bits, flags: {0x80: HIGH, 0x40: MIDDLE}}
  - {name: peer, description: an address}
examples: [{command: kubectl gadget run trace_dup, description: all}]
"""


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
def test_an_enum_a_set_of_flags_and_an_address_need_no_python(tmp_path: Path) -> None:
    (tmp_path / "trace_dup.bpf.c").write_text(NAMES)
    (tmp_path / "trace_dup.yaml").write_text(NAMES_YAML)
    gadget, built = load_own(tmp_path)
    with Tracer(gadget.name, built=built, pid=os.getpid()) as tracer:
        for fd in (0x81, 0xC2, 250):
            os.close(os.dup2(1, fd))
        batch = decode(gadget, "node-1", tracer.data())
    row = {member.name: member.read(batch).values() for member in row_members(gadget)}
    assert row["parity"] == ["odd", "even number", ""]
    assert row["bits"] == ["HIGH|0x1", "HIGH|MIDDLE|0x2", "HIGH|MIDDLE|0x3a"]
    assert row["bits_raw"] == [0x81, 0xC2, 250]
    assert row["peer"] == ["10.0.0.1"] * 3


@pytest.mark.parametrize("change", ["flags: {1: a}, field: nothing", "values: {1: a}, field: comm"])
def test_names_for_types_that_are_not_numbers_are_refused(tmp_path: Path, change: str) -> None:
    (tmp_path / "trace_dup.bpf.c").write_text(NAMES)
    (tmp_path / "trace_dup.yaml").write_text(NAMES_YAML.replace("flags: {0x80: HIGH, 0x40: MIDDLE}", change))
    with pytest.raises(UsageError, match=r"nothing|comm"):
        load_own(tmp_path)


@pytest.mark.parametrize("name", ["trace_chmod.bpf.c", "trace_chmod.yaml"])
def test_the_document_quotes_the_example_as_it_is(name: str) -> None:
    language = "c" if name.endswith(".c") else "yaml"
    text = (DOCS / "writing-gadgets.md").read_text()
    source = (EXAMPLE / name).read_text()
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.S | re.M)
    assert blocks
    for indent, block in blocks:
        assert "".join(line.removeprefix(indent) for line in block.splitlines(keepends=True)) in source


def test_a_folder_and_its_yaml_file_are_the_same_gadget(folder: Path) -> None:
    assert load_own(folder) == load_own(folder / "trace_chmod.yaml")


def test_objects_are_found_where_they_were_built(folder: Path) -> None:
    gadget, built = load_own(folder)
    for architecture in ("x86_64", "aarch64"):
        assert object_bytes(gadget.name, architecture, built).startswith(b"\x7fELF")


def test_without_a_compiler_what_was_built_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_clang = load_own(folder)
    monkeypatch.setattr(own, "find_clang", lambda: None)
    assert load_own(folder) == with_clang
    (folder / "trace_chmod.bpf.c").unlink()
    assert load_own(folder) == with_clang
    assert object_bytes("trace_chmod", MACHINE, folder / "built")


def test_without_a_compiler_what_was_not_built_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "find_clang", lambda: None)
    with pytest.raises(UsageError, match="was not built, and there is no clang") as error:
        load_own(folder)
    assert "apt-get install clang" in str(error.value.remedy)


def test_a_folder_without_a_program_is_reported(folder: Path) -> None:
    (folder / "trace_chmod.bpf.c").unlink()
    with pytest.raises(UsageError, match=r"its program trace_chmod\.bpf\.c is missing"):
        load_own(folder)


def test_a_folder_with_two_descriptions_is_reported(folder: Path) -> None:
    (folder / "other.yaml").touch()
    with pytest.raises(UsageError, match=r"expected one YAML file, found other\.yaml, trace_chmod\.yaml"):
        load_own(folder)


def test_what_is_no_gadget_is_reported(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such file or directory"):
        load_own(folder / "nothing")
    load_own(folder)
    with pytest.raises(UsageError, match="is not a gadget"):
        load_own(folder / "built" / "inputs.json")


def test_the_c_of_a_gadget_is_the_same_gadget_as_its_yaml(folder: Path) -> None:
    assert load_own(folder / "trace_chmod.bpf.c") == load_own(folder)


def test_a_folder_that_cannot_be_written_is_reported(folder: Path) -> None:
    (folder / "built").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be built into"):
        load_own(folder)
