"""Objects without the lines of their source: the same program, and none of its C."""

import os
from io import BytesIO
from pathlib import Path

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


def test_an_object_without_types_stays_as_it_is() -> None:
    program = Path("/proc/self/exe").read_bytes()
    assert without_lines(program) == program


def _section(elf: bytes, name: bytes) -> bytes:
    section = ELFFile(BytesIO(elf)).get_section_by_name(name.decode())
    assert section is not None
    data: bytes = section.data()
    return data
