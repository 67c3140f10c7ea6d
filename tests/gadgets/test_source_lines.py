"""Objects without the lines of their source: the same program, and none of its C."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from kubectl_gadget.gadgets.compiler import compile_object, find_clang, read_types
from kubectl_gadget.gadgets.source_lines import without_lines

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

enum color { RED, BLUE = 0x100000000ULL };
union either { int number; char letter; };
struct task_struct { int pid; } __attribute__((preserve_access_index));
struct row { enum color color; union either either; struct row *next; char name[16]; };
struct row *unused __attribute__((unused));

const volatile int wanted = 1;

static __noinline int quoted_function(struct task_struct *task)
{
	return BPF_CORE_READ(task, pid) + wanted;
}

SEC("raw_tp/sys_enter")
int first(void *context)
{
	return quoted_function((void *)bpf_get_current_task());
}

SEC("raw_tp/sys_exit")
int second(void *context)
{
	int quoted_variable = quoted_function(context);

	bpf_printk("%d", quoted_variable);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.mark.skipif(find_clang() is None, reason="needs clang")
def test_types_and_code_stay_and_the_source_goes(tmp_path: Path) -> None:
    source, header, object = tmp_path / "source" / "rows.bpf.c", tmp_path / "rows" / "rows.h", tmp_path / "rows.bpf.o"
    for path, text in ((source, "#include <rows.h>\n"), (header, SOURCE)):
        path.parent.mkdir()
        path.write_text(text)
    compile_object(source, os.uname().machine, object, [header.parent])
    whole, types = object.read_bytes(), read_types(object)
    smaller = without_lines(whole)
    object.write_bytes(smaller)
    assert b"int quoted_variable = quoted_function(context);" in whole
    assert b"quoted_variable" not in smaller
    assert b"rows.h" in smaller
    assert b"quoted_function" in smaller
    assert len(smaller) < 0.9 * len(whole)
    assert read_types(object) == types
    for name in (b"raw_tp/sys_enter", b"raw_tp/sys_exit", b".text", b"license", b".rodata"):
        assert _section(smaller, name) == _section(whole, name)
    assert without_lines(smaller) == smaller


FORWARDS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct one { struct zebra *a; struct ape *b; struct newt *c; struct zebra (*d)(struct ape *); struct newt *e[2]; };

SEC("raw_tp/sys_enter")
int first(struct one *context)
{
	return context->a == (void *)context->c;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.mark.skipif(find_clang() is None, reason="needs clang")
def test_forward_declarations_are_sorted_since_clangs_order_differs_from_run_to_run(tmp_path: Path) -> None:
    source, object = tmp_path / "rows.bpf.c", tmp_path / "rows.bpf.o"
    source.write_text(FORWARDS)
    compile_object(source, os.uname().machine, object)
    before = read_types(object)
    object.write_bytes(without_lines(object.read_bytes()))
    after = read_types(object)
    assert [item["name"] for item in after if item["kind"] == "FWD"] == ["ape", "newt", "zebra"]
    assert [item["name"] for item in before if item["kind"] == "FWD"] != ["ape", "newt", "zebra"]
    assert spelt(after, 2) == spelt(before, 2)


def spelt(types: list[dict[str, Any]], number: int) -> Any:
    """A type with those that it refers to, without their numbers."""
    found = types[number - 1]
    inner = [{**member, "type_id": spelt(types, member["type_id"])} for member in found.get("members", ())]
    inner += [spelt(types, member["type_id"]) for member in found.get("params", ())]
    inner += [spelt(types, found[key]) for key in ("type_id", "ret_type_id", "index_type_id") if key in found]
    return found["kind"], found["name"], inner


def test_an_object_without_types_stays_as_it_is() -> None:
    program = Path("/proc/self/exe").read_bytes()
    assert without_lines(program) == program


def _section(elf: bytes, name: bytes) -> bytes:
    section = ELFFile(BytesIO(elf)).get_section_by_name(name.decode())
    assert section is not None
    data: bytes = section.data()
    return data
