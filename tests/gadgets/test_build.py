"""The build: what it makes, when it does nothing, and what it says when it cannot."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets import build, compiler
from kubectl_gadget.gadgets.load import load_gadget, load_index

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "trace_chmod"
ONE = ("x86_64",)

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(compiler.find_clang() is None or not shutil.which("bpftool"), reason="needs clang and bpftool"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with one gadget."""
    (tmp_path / "bpf").mkdir()
    (tmp_path / "gadgets").mkdir()
    shutil.copy(EXAMPLE / "trace_chmod.bpf.c", tmp_path / "bpf")
    shutil.copy(EXAMPLE / "trace_chmod.yaml", tmp_path / "gadgets")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_gadget_becomes_objects_a_schema_and_a_line_of_the_index(tree: Path) -> None:
    built = tree / "built"
    assert build.build(tree, built) == ["trace_chmod"]
    for architecture in ("x86_64", "aarch64"):
        assert (built / "objects" / architecture / "trace_chmod.bpf.o").read_bytes().startswith(b"\x7fELF")
    (line,) = load_index(built)
    assert (line.name, line.command, line.group) == ("trace_chmod", ("trace", "chmod"), "files")
    gadget = load_gadget("trace_chmod", built)
    assert gadget.record.struct == "trace_chmod"
    assert [parameter.name for parameter in gadget.parameters] == [
        "failed",
        "pid",
        "descendants",
        "comm",
        "uid",
        "runtime",
    ]


def test_a_program_without_a_description_gives_an_object_only(tree: Path) -> None:
    (tree / "gadgets" / "trace_chmod.yaml").unlink()
    assert build.build(tree, tree / "built", ONE) == []
    assert (tree / "built" / "objects" / "x86_64" / "trace_chmod.bpf.o").exists()


def test_nothing_is_done_when_nothing_changed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build(tree, tree / "built", ONE)
    before = {path: path.stat().st_mtime_ns for path in (tree / "built").rglob("*")}
    build.build(tree, tree / "built", ONE)
    assert {path: path.stat().st_mtime_ns for path in (tree / "built").rglob("*")} == before


def test_a_new_description_needs_no_compiler(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build(tree, tree / "built", ONE)
    edit(tree / "gadgets" / "trace_chmod.yaml", "summary: Files", "summary: All files")
    monkeypatch.setattr("kubectl_gadget.gadgets.build.compile_object", None)
    build.build(tree, tree / "built", ONE)
    assert load_gadget("trace_chmod", tree / "built").about.summary.startswith("All files")


def test_changed_c_is_compiled(tree: Path) -> None:
    build.build(tree, tree / "built", ONE)
    edit(tree / "bpf" / "trace_chmod.bpf.c", "__u32 unused;", "__u32 more;")
    edit(tree / "bpf" / "trace_chmod.bpf.c", "change->unused = 0;", "change->more = 0;")
    build.build(tree, tree / "built", ONE)
    assert load_gadget("trace_chmod", tree / "built").record.field("more").size == 4


def test_objects_keep_the_lines_of_their_source_only_when_asked_to(tree: Path) -> None:
    object, line = tree / "built" / "objects" / "x86_64" / "trace_chmod.bpf.o", b"return moved ? moved->cgroup : 0;"
    for keep in (False, False, True, False):
        object.unlink(missing_ok=True)
        build.build(tree, tree / "built", ONE, source_lines=keep)
        assert (line in object.read_bytes()) == keep


def test_objects_do_not_name_the_machine_that_built_them(tree: Path) -> None:
    build.build(tree, tree / "built", ONE)
    content = (tree / "built" / "objects" / "x86_64" / "trace_chmod.bpf.o").read_bytes()
    assert str(tree).encode() not in content


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("record: trace_chmod", "record: trace_chown", "has no struct trace_chown"),
        (
            "variable: filter_failed",
            "variable: failed",
            "parameter failed sets failed, which the C code does not define",
        ),
        ("name: mode", "name: mood", "column mood shows mood, which is not a field of struct trace_chmod"),
        ("[[fchmodat2_exit]]", "[[fchmodat3_exit]]", "programs names fchmodat3_exit"),
    ],
)
def test_a_description_that_does_not_fit_the_c_is_reported(tree: Path, old: str, new: str, said: str) -> None:
    edit(tree / "gadgets" / "trace_chmod.yaml", old, new)
    with pytest.raises(UsageError, match=said):
        build.build(tree, tree / "built", ONE)


def test_a_description_without_a_program_is_reported(tree: Path) -> None:
    (tree / "gadgets" / "trace_chmod.yaml").rename(tree / "gadgets" / "trace_other.yaml")
    with pytest.raises(UsageError, match=r"there is no bpf/trace_other\.bpf\.c"):
        build.build(tree, tree / "built", ONE)


def test_what_the_compiler_says_is_shown(tree: Path) -> None:
    edit(tree / "bpf" / "trace_chmod.bpf.c", "return changed(", "return undeclared(")
    with pytest.raises(UsageError, match=r"trace_chmod\.bpf\.c does not compile for x86_64:[\s\S]*undeclared"):
        build.build(tree, tree / "built", ONE)


def test_a_compiler_that_crashes_is_not_the_sources_fault(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "clang"
    crashing.write_text("#!/bin/sh\nkill -s SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(compiler, "find_clang", lambda: str(crashing))
    edit(tree / "bpf" / "trace_chmod.bpf.c", "return changed(", "return other(")
    with pytest.raises(GadgetError, match=rf"{crashing} was ended by SIGSEGV while it compiled .*/trace_chmod\.bpf\.c"):
        build.build(tree, tree / "built", ONE)


@pytest.mark.parametrize("tool", ["clang", "bpftool"])
def test_a_missing_tool_is_reported_with_its_package(tree: Path, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name.startswith(tool) else found(name, **more))
    compiler._of_objects.cache_clear()
    compiler._of_schemas.cache_clear()
    with pytest.raises(GadgetError, match=f"{tool}, which .* is not installed") as error:
        build.build(tree, tree / "built", ONE)
    assert "apt-get install" in str(error.value.remedy)


def test_missing_headers_are_reported_with_their_package(tree: Path) -> None:
    source = tree / "bpf" / "trace_chmod.bpf.c"
    # Stands in for a machine without libbpf-dev: clang complains about the header in these words.
    source.write_text("#error \"'bpf/bpf_helpers.h' file not found\"\n")
    with pytest.raises(GadgetError, match=r"headers of libbpf are missing: bpf/bpf_helpers\.h"):
        build.build(tree, tree / "built", ONE)


def test_a_truncated_file_of_inputs_does_not_stop_a_build(tree: Path) -> None:
    build.build(tree, tree / "built", ONE)
    (tree / "built" / "inputs.json").write_text("{")
    build.build(tree, tree / "built", ONE)
    assert json.loads((tree / "built" / "inputs.json").read_text())


def test_what_has_no_source_any_more_is_removed_with_its_inputs(tree: Path) -> None:
    build.build(tree, tree / "built", ONE)
    for folder, ending in (("bpf", "bpf.c"), ("gadgets", "yaml")):
        (tree / folder / f"trace_chmod.{ending}").rename(tree / folder / f"trace_renamed.{ending}")
    build.build(tree, tree / "built", ONE)
    names = [path.name for path in (tree / "built").rglob("*")]
    assert "trace_renamed.bpf.o" in names
    assert not [name for name in names if name.startswith("trace_chmod")]
    assert "trace_chmod" not in (tree / "built" / "inputs.json").read_text()


def test_the_command_ends_with_one_line_when_it_cannot(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_gadget.gadgets.build", "--arch", "mips"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "invalid choice: 'mips'" in done.stderr
