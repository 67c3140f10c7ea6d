"""Programs of one C file without YAML: what they print and send arrives as rows, from kprobes, too."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.kernel.features import lacking
from kubectl_gadget.gadgets import load_own
from kubectl_gadget.gadgets.compiler import find_clang
from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(find_clang() is None or not shutil.which("bpftool"), reason="needs clang and bpftool"),
]
TIMES = 17
LICENSE = 'char LICENSE[] SEC("license") = "GPL";'
HEADERS = {
    "plain headers": "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n",
    "vmlinux.h": '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n',
    "no headers": "",
}
EVENT = """
struct event {
	unsigned long long number;
	unsigned int pid;
	char comm[16];
	char name[12];
	_Bool even;
};
"""


def rows_of(folder: Path, source: str, pid: int, deed: Any) -> list[dict[str, Any]]:
    (folder / "own.bpf.c").write_text(source)
    gadget, built = load_own(folder / "own.bpf.c")
    with Tracer(gadget.name, built=built, pid=pid) as tracer:
        deed()
        records = tracer.records()
        assert tracer.lost == 0
    return records


def opens() -> None:
    for _ in range(TIMES):
        deeds.openat(b"/nowhere", os.O_RDONLY)


@pytest.mark.parametrize("headers", HEADERS)
def test_lines_that_a_program_prints_are_rows(tmp_path: Path, headers: str) -> None:
    source = f"""{HEADERS[headers]}
SEC("raw_tp/sys_enter")
int entered(unsigned long long *ctx)
{{
	if (ctx[1] == {deeds.OPENAT})
		bpf_printk("call %d, %s, %x, %lu\\n", (int)ctx[1], "text", 255, 1UL << 40);
	return 0;
}}
{LICENSE}
"""
    found = [row["message"] for row in rows_of(tmp_path, source, os.getpid(), opens)]
    assert found == [f"call {deeds.OPENAT}, text, ff, {1 << 40}"] * TIMES


@pytest.mark.parametrize(
    ("format", "message"), [("%s" + "-" * 1100, "x" * 500 + "-" * 523 + "…"), ("%s%s%s", None)], ids=["cut", "lost"]
)
def test_a_line_that_is_too_long_is_cut_or_counted_as_lost(tmp_path: Path, format: str, message: str | None) -> None:
    given = ", text" * format.count("%s")
    (tmp_path / "own.bpf.c").write_text(f"""#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
static const char text[] = "{"x" * 500}";
SEC("raw_tp/sys_enter")
int entered(unsigned long long *ctx)
{{
	if (ctx[1] == {deeds.OPENAT} && bpf_get_current_pid_tgid() >> 32 == {os.getpid()})
		bpf_printk("{format}"{given});
	return 0;
}}
{LICENSE}
""")
    gadget, built = load_own(tmp_path / "own.bpf.c")
    with Tracer(gadget.name, built=built, pid=os.getpid()) as tracer:
        opens()
        records = tracer.records()
        assert (tracer.lost, tracer.cut) == ((0, TIMES) if message else (TIMES, 0))
    assert [record["message"] for record in records] == ([message] * TIMES if message else [])


SENT = {
    "reserved": """
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	fill(event);
	bpf_ringbuf_submit(event, 0);""",
    "copied": """
	struct event event = {};
	fill(&event);
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);""",
    "perf buffer": """
	struct event event = {};
	fill(&event);
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event));""",
}


@pytest.mark.parametrize("way", SENT)
def test_a_struct_that_a_program_sends_becomes_columns(tmp_path: Path, way: str) -> None:
    kind = "PERF_EVENT_ARRAY" if way == "perf buffer" else "RINGBUF"
    size = "__uint(max_entries, 1 << 18);"
    if way == "perf buffer":
        size = "__uint(key_size, 4); __uint(value_size, 4);"
    source = f"""#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
{EVENT}
struct {{ __uint(type, BPF_MAP_TYPE_{kind}); {size} }} events SEC(".maps");
static __always_inline void fill(struct event *event)
{{
	event->number = 1ULL << 33;
	event->pid = 7;
	event->even = 1;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	__builtin_memcpy(event->name, "some text", 10);
}}
SEC("raw_tp/sys_enter")
int entered(unsigned long long *ctx)
{{
	if (ctx[1] != {deeds.OPENAT})
		return 0;
	{SENT[way]}
	return 0;
}}
{LICENSE}
"""
    records = rows_of(tmp_path, source, os.getpid(), opens)
    gadget, _ = load_own(tmp_path / "own.bpf.c")
    shown = [column.name for column in gadget.columns if column.show == "default"]
    assert shown[:6] == ["node", "namespace", "pod", "container", "pid", "comm"]
    assert shown[6:] == ["number", "event_pid", "event_comm", "name", "even"]
    comm = Path("/proc/self/comm").read_text().strip()
    assert [
        (record["number"], record["event_pid"], record["event_comm"], record["name"], record["even"])
        for record in records
    ] == [(1 << 33, 7, comm, "some text", 1)] * TIMES
    assert {(record["pid"], record["comm"]) for record in records} == {(os.getpid(), comm)}


def test_kprobes_print_as_well(tmp_path: Path) -> None:
    if why := lacking("kprobe"):
        pytest.skip(why)
    source = f"""#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("kprobe/do_sys_openat2")
int opened(void *ctx)
{{
	bpf_printk("opened");
	return 0;
}}
{LICENSE}
"""
    assert [row["message"] for row in rows_of(tmp_path, source, os.getpid(), opens)] == ["opened"] * TIMES
