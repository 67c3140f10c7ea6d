"""The layout of a record as clang's BTF gives it."""

import shutil
from pathlib import Path

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.btf_layout import BtfLayout, enum_names
from kubectl_gadget.gadgets.compiler import compile_object, find_clang, read_types
from kubectl_gadget.gadgets.schema import Global

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(find_clang() is None or not shutil.which("bpftool"), reason="needs clang and bpftool"),
]

SOURCE = """
#include <gadget/output.h>
#include <gadget/process.h>
struct inner { __u16 low; __u16 high; };
struct trace_x { struct gadget_record record; %s };
GADGET_RECORD(trace_x);
const volatile bool one = false;
const volatile __u32 four = 4;
const volatile __s16 below = -2;
const volatile char many[10] = "";
SEC("tracepoint/syscalls/sys_exit_close") int program(void *ctx) { return one + four + below + many[1]; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
OWN = "__s32 a; gadget_errno b; gadget_string c; struct inner d; __u8 e[4]; bool f; char g; __u16 unused_h;"


def layout(directory: Path, members: str = OWN, architecture: str = "x86_64") -> BtfLayout:
    source = directory / "x.bpf.c"
    source.write_text(SOURCE % members)
    target = directory / architecture / "x.bpf.o"
    compile_object(source, architecture, target)
    return BtfLayout(read_types(target), "x.bpf.c")


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> BtfLayout:
    return layout(tmp_path_factory.mktemp("layout"))


def test_fields_have_place_size_and_meaning(read: BtfLayout) -> None:
    record = read.record("trace_x")
    fields = {field.name: (field.offset, field.size, field.type, field.signed) for field in record.fields}
    assert fields["timestamp"] == (0, 8, "gadget_timestamp", False)
    assert fields["comm"] == (40, 16, "gadget_comm", False)
    assert fields["a"] == (80, 4, "__s32", True)
    assert fields["b"] == (84, 4, "gadget_errno", True)
    assert fields["c"] == (88, 4, "gadget_string", False)
    assert fields["e"] == (96, 4, "__u8[4]", False)
    assert fields["f"][:2] == (100, 1)
    assert record.size == 104


def test_a_struct_inside_gives_its_own_fields(read: BtfLayout) -> None:
    fields = {field.name: field.offset for field in read.record("trace_x").fields}
    assert (fields["low"], fields["high"]) == (92, 94)
    assert "d" not in fields
    assert "record" not in fields


def test_padding_is_not_a_field(read: BtfLayout) -> None:
    assert not [field for field in read.record("trace_x").fields if field.name.startswith("unused")]


def test_variables_have_their_place_in_the_section(read: BtfLayout) -> None:
    variables = read.globals()
    assert variables["one"].size == 1
    assert variables["many"].size == 10
    assert (variables["four"].signed, variables["below"].signed, variables["many"].signed) == (False, True, False)
    assert len({place.offset for place in variables.values()}) == len(variables)
    assert variables["gadget_node_cgroup"] == Global(8, 8)
    assert "gadget_record_type" not in variables


def test_both_architectures_have_one_layout(read: BtfLayout, tmp_path: Path) -> None:
    other = layout(tmp_path, architecture="aarch64")
    assert other.record("trace_x") == read.record("trace_x")
    assert other.globals() == read.globals()


def test_programs_are_known_by_name(read: BtfLayout) -> None:
    assert "program" in read.functions()


def test_a_struct_that_is_not_there_is_reported(read: BtfLayout) -> None:
    with pytest.raises(UsageError, match=r"x\.bpf\.c has no struct trace_y"):
        read.record("trace_y")


def test_a_struct_without_the_head_is_reported(read: BtfLayout) -> None:
    with pytest.raises(UsageError, match="struct gadget_record does not begin with"):
        read.record("gadget_record")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ("void *p;", "field p is a ptr"),
        ("__u32 a : 3;", "field a is a bit field"),
        ("__u32 pid;", "has two fields pid"),
    ],
)
def test_a_field_that_cannot_be_shown_is_reported(tmp_path: Path, members: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        layout(tmp_path, members).record("trace_x")


def test_an_enum_carries_the_names_of_its_values(tmp_path: Path) -> None:
    members = "enum state { STATE_OPEN = 1, STATE_HALF_CLOSED, STATE_BAD = -7 } a; __u32 b;"
    fields = {field.name: field for field in layout(tmp_path, members).record("trace_x").fields}
    assert fields["a"].values == ((1, "open"), (2, "half closed"), (-7, "bad"))
    assert fields["a"].signed
    assert fields["b"].values == ()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([(0, "IN"), (1, "OUT")], ("in", "out")),
        ([(1, "SYN_SENT"), (2, "SYN_RECEIVED")], ("sent", "received")),
        ([(1, "STATE_OPEN")], ("state open",)),
        ([(1, "A_STOP"), (1, "A_HALT"), (2, "A_GO")], ("stop", "go")),
        ([(1, "KIND"), (2, "KIND_OTHER")], ("kind", "kind other")),
    ],
)
def test_what_all_names_of_an_enum_begin_with_is_left_out(
    values: list[tuple[int, str]], names: tuple[str, ...]
) -> None:
    assert tuple(name for _, name in enum_names(values)) == names
