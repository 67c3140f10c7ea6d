"""A user's own gadget: the example of docs/writing-gadgets.md, built, and run in this kernel."""

import os
import re
import shutil
from pathlib import Path

import pytest

from kubectl_gadget.catalogue import load_own, object_bytes, own
from kubectl_gadget.catalogue.compiler import find_clang
from kubectl_gadget.errors import UsageError
from tests.bpf.tracer import MACHINE, Tracer

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "trace_chmod"
TIMES = 13

pytestmark = pytest.mark.skipif(find_clang() is None or not shutil.which("bpftool"), reason="needs clang and bpftool")


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


def test_without_a_compiler_what_was_not_built_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "find_clang", lambda: None)
    with pytest.raises(UsageError, match="was not built, and there is no clang") as error:
        load_own(folder)
    assert "apt-get install clang" in str(error.value.remedy)


def test_a_folder_without_a_program_is_told(folder: Path) -> None:
    (folder / "trace_chmod.bpf.c").unlink()
    with pytest.raises(UsageError, match=r"neither trace_chmod\.bpf\.c nor"):
        load_own(folder)


def test_a_folder_with_two_descriptions_is_told(folder: Path) -> None:
    (folder / "other.yaml").touch()
    with pytest.raises(UsageError, match=r"has to hold one YAML file, and holds other\.yaml, trace_chmod\.yaml"):
        load_own(folder)


def test_what_is_no_gadget_is_told(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        load_own(folder / "nothing")
    load_own(folder)
    with pytest.raises(UsageError, match="is no gadget"):
        load_own(folder / "built" / "inputs.json")


def test_the_c_of_a_gadget_is_the_same_gadget_as_its_yaml(folder: Path) -> None:
    assert load_own(folder / "trace_chmod.bpf.c") == load_own(folder)


def test_a_folder_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder / "built").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be built into"):
        load_own(folder)
