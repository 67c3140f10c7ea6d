"""Programs of one C file without YAML: errors use the words of the file."""

import shutil
from pathlib import Path

import pytest

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets import load_own, object_bytes, own
from kubectl_gadget.gadgets.compiler import find_clang

pytestmark = [
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(find_clang() is None or not shutil.which("bpftool"), reason="needs clang and bpftool"),
]
LICENSE = 'char LICENSE[] SEC("license") = "GPL";\n'
HELLO = 'SEC("tp/syscalls/sys_enter_openat")\nint hello(void *ctx) { bpf_printk("hello"); return 0; }\n' + LICENSE
SENDS = """
struct {{ __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); }} events SEC(".maps");
struct event {{ int number; }};
struct other {{ long number; }};
SEC("tp/syscalls/sys_enter_openat")
int sends(void *ctx)
{{
	struct event event = {{ 1 }};
	struct other other = {{ 2 }};
	int number = 3;
	{}
	return 0;
}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "own.bpf.c"
    path.write_text(text)
    return path


def sends(*what: str) -> str:
    return SENDS.format("\n".join(f"bpf_ringbuf_output(&events, &{it}, sizeof({it}), 0);" for it in what)) + LICENSE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HELLO.replace(LICENSE, ""), "has no license"),
        (HELLO.replace('bpf_printk("hello");', ""), "prints nothing and sends nothing"),
        (HELLO.replace("tp/syscalls/sys_enter_openat", "xdp"), "needs an interface or a socket"),
        (HELLO.replace("tp/syscalls/sys_enter_openat", "uprobe"), "does not say where"),
        (HELLO.replace('bpf_printk("hello");', "bpf_trace_printk(0, 0);"), "write bpf_printk"),
        (HELLO.replace("return 0;", "return nonsense;"), "own.bpf.c:2:"),
        (sends("event", "other"), "sends structs of several types: event, other"),
        (sends("number"), "sends a int"),
        (sends("event").replace("int number = 3;", 'bpf_printk("x");'), "can do only one of them"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_own(written(tmp_path, text))
    assert said in str(refused.value)


def test_a_program_is_built_once_and_runs_without_a_compiler_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, HELLO)
    gadget, built = load_own(path)
    for machine in ("x86_64", "aarch64"):
        assert object_bytes(gadget.name, machine, built).startswith(b"\x7fELF")
    monkeypatch.setattr(own, "compile_object", None)
    assert load_own(path) == (gadget, built)
    monkeypatch.setattr(own, "find_clang", lambda: None)
    assert load_own(path) == (gadget, built)


def test_without_a_compiler_what_was_not_built_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "find_clang", lambda: None)
    with pytest.raises(GadgetError, match=r"clang, which compiles .*, is not installed"):
        load_own(written(tmp_path, HELLO))


def test_a_program_of_one_architecture_is_built_for_that(tmp_path: Path) -> None:
    text = "#if !defined(__TARGET_ARCH_x86)\n#error not here\n#endif\n#include <bpf/bpf_helpers.h>\n"
    path = written(tmp_path, "#include <linux/bpf.h>\n" + text + HELLO)
    gadget, built = load_own(path)
    assert object_bytes(gadget.name, "x86_64", built)
    with pytest.raises(GadgetError, match="was not built for aarch64"):
        object_bytes(gadget.name, "aarch64", built)


def test_a_file_with_a_yaml_beside_it_is_the_gadget_of_the_yaml(tmp_path: Path) -> None:
    path = written(tmp_path, HELLO)
    (tmp_path / "own.yaml").write_text("command: trace own\n")
    with pytest.raises(UsageError, match=r"own\.yaml"):
        load_own(path)
