"""What a BPF object could do is found in what the kernel would run, not in what its author calls it."""

import subprocess
from pathlib import Path

import pytest

from kubectl_gadget.gadgets.compiler import find_clang
from kubectl_gadget.wire.acting_objects import could_act

pytestmark = pytest.mark.compiled
HEAD = """
#define SEC(NAME) __attribute__((section(NAME), used))
static long (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_send_signal)(unsigned int) = (void *)109;
static long (*bpf_probe_write_user)(void *, const void *, unsigned int) = (void *)36;
static long (*bpf_override_return)(void *, unsigned long) = (void *)58;
static long (*newest)(void) = (void *)212;
extern int bpf_sock_destroy(void *) __attribute__((section(".ksyms")));
extern int weakly(void *) __attribute__((section(".ksyms"), weak));
const volatile _Bool dry_run = 1;
char LICENSE[] SEC("license") = "GPL";
static __attribute__((noinline)) int of_text(void *context) { return bpf_send_signal(9); }
"""
OBSERVES = 'SEC("tp_btf/sched_switch") int first(void *context) { return bpf_get_current_pid_tgid(); }\n'


def compiled(folder: Path, code: str) -> bytes:
    clang = find_clang()
    if clang is None:
        pytest.skip("needs clang")
    source, target = folder / "own.c", folder / "own.o"
    source.write_text(HEAD + OBSERVES + code)
    subprocess.run([clang, "-target", "bpf", "-O2", "-g", "-c", source, "-o", target], check=True)
    return target.read_bytes()


@pytest.mark.parametrize(
    "code",
    [
        "",
        *(
            f'SEC("{section}") int second(void *context) {{ return bpf_get_current_pid_tgid() > 1; }}'
            for section in ("kprobe", "?fentry/do_exit", "iter/task", "raw_tp/sys_enter", "perf_event")
        ),
    ],
)
def test_what_only_observes_is_known(tmp_path: Path, code: str) -> None:
    assert not could_act(compiled(tmp_path, code))


@pytest.mark.parametrize(
    "code",
    [
        # The switch is as the author wants it to be.
        'SEC("kprobe") int second(void *context) { return dry_run ? 0 : bpf_send_signal(9); }',
        'SEC("kprobe") int second(void *context) { return bpf_probe_write_user(context, context, 1); }',
        'SEC("kprobe") int second(void *context) { return bpf_override_return(context, 1); }',
        'SEC("kprobe") int second(void *context) { return newest(); }',
        # Functions are in a section of their own, also of programs that are not loaded at first.
        'SEC("?kprobe") int second(void *context) { return of_text(context); }',
        'SEC("iter/tcp") int second(void *context) { return bpf_sock_destroy(context); }',
        'SEC("iter/tcp") int second(void *context) { return weakly ? weakly(context) : 0; }',
        *(
            f'SEC("{section}") int second(void *context) {{ return 1; }}'
            for section in (
                *("lsm/file_open", "?lsm.s/file_open", "fmod_ret/security_file_open", "cgroup_skb/egress", "xdp", "tc"),
                *("cgroup/connect4", "uprobe", "uprobe//bin/sh:main", "usdt", "raw_tp.w/x", "struct_ops/x", "syscall"),
                *("freplace/x", "of_nothing_known"),
            )
        ),
    ],
)
def test_what_could_act_is_found(tmp_path: Path, code: str) -> None:
    assert could_act(compiled(tmp_path, code))


def test_what_cannot_be_read_counts_as_acting(tmp_path: Path) -> None:
    elf = compiled(tmp_path, "")
    other_order, no_sections = b"\x7fELF\x02\x02\x01" + elf[7:], elf[:60] + bytes(4) + elf[64:]
    for spoilt in (b"", b"\x7fELF", elf[:100], elf[:-64], other_order, no_sections):
        assert could_act(spoilt)
