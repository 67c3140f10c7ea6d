"""Where the test for chosen pods goes into a program of bpftrace, and which programs are refused."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.other_tools.bpftrace_program import Scanner, limited

T = "tracepoint:syscalls:sys_enter_openat"


def rewritten(program: str) -> str:
    """Without what is appended."""
    text, heir, gone = limited(program, "p").rsplit("\nrawtracepoint:", 2)
    assert heir.startswith("cgroup_mkdir {")
    assert gone.startswith("cgroup_rmdir {")
    return text


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (f"{T} {{ @ = count() }}", f"{T} /@p[cgroup]/ {{ @ = count() }}"),
        (f"{T}{{}}", f"{T}/@p[cgroup]/ {{}}"),
        (f"{T} /pid/ {{ }}", f"{T} /@p[cgroup] && (pid)/ {{ }}"),
        (f"{T} /a || b/{{ }}", f"{T} /@p[cgroup] && (a || b)/{{ }}"),
        ("k:f / 8 / 2 == 4 / { }", "k:f /@p[cgroup] && ( 8 / 2 == 4 )/ { }"),
        ("k:f\n/ comm == \"/ {\" // no / {\n/\n{ }", "k:f\n/@p[cgroup] && ( comm == \"/ {\" // no / {\n)/\n{ }"),
        ("k:f /* / { */ /x/ { }", "k:f /* / { */ /@p[cgroup] && (x)/ { }"),
        ('k:f { printf("}\\"}"); } k:g { }', 'k:f /@p[cgroup]/ { printf("}\\"}"); } k:g /@p[cgroup]/ { }'),
        ("k:f { if (x) { y } else { z } } END { }", "k:f /@p[cgroup]/ { if (x) { y } else { z } } END { }"),
        ("k:f { // }\n}", "k:f /@p[cgroup]/ { // }\n}"),
        ("k:f { /* } */ }", "k:f /@p[cgroup]/ { /* } */ }"),
        ("BEGIN { } END { } interval:s:1 { } i:ms:5 { } self:signal:SIGUSR1 { }", None),
        ("BEGIN { } k:f { }", "BEGIN { } k:f /@p[cgroup]/ { }"),
        ("k:f, kr:g,\n t:sched:sched_switch /x/ { }", "k:f, kr:g,\n t:sched:sched_switch /@p[cgroup] && (x)/ { }"),
        ("interval:s:1, i:ms:3 /x/ { }", None),
        ("uprobe:/bin/sh:main /x/ { }", "uprobe:/bin/sh:main /@p[cgroup] && (x)/ { }"),
        ('uprobe:/bin/sh:"f(int)" { }', 'uprobe:/bin/sh:"f(int)" /@p[cgroup]/ { }'),
        ("u:./a-b_c.so:f+3 { }", "u:./a-b_c.so:f+3 /@p[cgroup]/ { }"),
        ("kprobe:vfs_* { }", "kprobe:vfs_* /@p[cgroup]/ { }"),
        ("kprobe:$1 { }", "kprobe:$1 /@p[cgroup]/ { }"),
        ("k:f { @ = $# } // end", "k:f /@p[cgroup]/ { @ = $# } // end"),
        ("#!/bin/bpftrace\n#include <x.h> {\nk:f { }", "#!/bin/bpftrace\n#include <x.h> {\nk:f /@p[cgroup]/ { }"),
        ("struct a { struct { int c; } d; };\nk:f { }", "struct a { struct { int c; } d; };\nk:f /@p[cgroup]/ { }"),
        ("enum e { A }\nconfig = { x = 1 }\nk:f { }", "enum e { A }\nconfig = { x = 1 }\nk:f /@p[cgroup]/ { }"),
        ("fn f($a : int64): int64 { return 1; } k:f { }", "fn f($a : int64): int64 { return 1; } k:f /@p[cgroup]/ { }"),
        ("let @a = hash(3); k:f { }", "let @a = hash(3); k:f /@p[cgroup]/ { }"),
        ("f:vmlinux:f { }", "f:vmlinux:f /@p[cgroup]/ { }"),
        ("profile:hz:9, s:faults:1, h:cycles: { }", "profile:hz:9, s:faults:1, h:cycles: /@p[cgroup]/ { }"),
    ],
)  # fmt: skip
def test_each_probe_gets_the_test_and_all_else_stays(program: str, expected: str | None) -> None:
    assert rewritten(program) == (program if expected is None else expected)


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("", "program:1:1: the program has no probe"),
        ("// k:f { }", "the program has no probe"),
        ("k:f", "program:1:4: the block of the last probe is missing"),
        ("k:f {", "program:1:5: this block is not closed"),
        ('k:f { printf("x) }', "program:1:14: this text is not closed"),
        ("k:f /* {}", "this comment is not closed"),
        ("k:f /x { }", "program:1:5: this predicate is not closed"),
        (f"{T}/pid==1/{{ }}", "expected the name of a probe, not '='"),
        ("k:f, { }", "a probe is missing here"),
        ("\n  kprbe:f { }", "program:2:3: unknown kind of probe 'kprbe'; did you mean kprobe?"),
        ("sys_enter_openat { }", "unknown kind of probe 'sys_enter_openat'"),
        ("iter:task { }", "iter:task iterates over objects of the whole node and has no current process"),
        ("k:f { }\nit:task_file { }", "program:2:1: it:task_file iterates"),
        ("k:f, interval:s:1 { }", "this list has probes with and without a current process"),
        ("t:irq:irq_handler_entry { }", "t:irq:irq_handler_entry happens in interrupts"),
        ("tracepoint:block:block_rq_complete { }", "happens in interrupts"),
        ("tracepoint:block:* { }", "tracepoint:block:* includes block:block_rq_complete, which happens in interrupts"),
        ("tracepoint:timer:hrtimer_start { }", "happens in interrupts and kernel threads"),
    ],
)
def test_what_cannot_be_limited_is_refused_with_its_place_and_reason(program: str, what: str) -> None:
    with pytest.raises(UsageError, match=re.escape(what)):
        limited(program, "p")


def test_the_way_out_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        limited("iter:task { }", "p", "mine.bt")
    assert str(caught.value).startswith("mine.bt:1:1: ")
    assert caught.value.remedy == "--host, which shows the whole node"


def test_lines_stay_where_they_are() -> None:
    program = "k:f\n\n/x/\n{\n}\nk:g\n{ }"
    assert [line.replace("/@p[cgroup]/ ", "") for line in rewritten(program).split("\n")][3:] == program.split("\n")[3:]


PARTS = st.sampled_from(
    ["k:f", "BEGIN", "interval:s:1", T, " ", "\n", "{", "}", "/", '"', "\\", "//", "/*", "*/", "x", ",", "#", "$1", ";"]
)  # fmt: skip


@given(st.lists(PARTS, max_size=25).map("".join))
def test_whatever_is_typed_every_probe_has_the_test_or_it_is_refused(program: str) -> None:
    try:
        text = limited(program, "p")
    except UsageError:
        return
    again = Scanner(text, "again").probes()
    for probe in again[:-1]:
        if probe.points[0][1] not in ("BEGIN", "interval:s:1"):
            assert probe.predicate is not None
            assert text[slice(*probe.predicate)].startswith("@p[cgroup]")
    assert text.replace("@p[cgroup] && (", "").startswith(program[:3]) or "/@p[cgroup]/ " in text


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("bpftrace"), reason="bpftrace is not installed: apt-get install bpftrace")
def test_the_probes_are_those_that_bpftrace_itself_finds(tmp_path_factory: pytest.TempPathFactory) -> None:
    from kubectl_gadget.agent import other_tools

    folder = tmp_path_factory.mktemp("bpftrace")
    program = (
        "struct a { int b; };\nBEGIN { printf(\"{\\\"/ {\"); }\n// k:no { }\nk:f / pid / 2 == 4 / { @a = 1 }\n"
        "uprobe:/bin/sh:main /* { */ { if (1) { @b = 2 } }\nEND { }\n"
    )  # fmt: skip
    (folder / "p.bt").write_text(limited(program, "pods_1"))
    command = [other_tools.executable(str(folder)), "-d", "ast", "--dry-run", str(folder / "p.bt")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    tree = found.stdout.partition("AST after: parser")[2].partition("\nAST after")[0] or found.stdout
    assert len(re.findall(r"^ *(?:kprobe|k|uprobe):\S+", tree, re.MULTILINE)) >= 2, found
    assert tree.count("map: @pods_1") >= 4, found
