"""The objects with libbpf, libelf and zlib: what they need, what they export, and that they are made anew the same."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import pack_libbpf
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT

pytestmark = pytest.mark.compiled

PACKAGE = BUILT.parent
NEEDED = {
    "glibc": {"libc.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"},
    "musl": {"libc.so"},
}
MUSL = Path(f"/lib/ld-musl-{os.uname().machine}.so.1")
"""Debian's package musl"""


@pytest.fixture(scope="module")
def libraries() -> Path:
    return pack_libbpf.build(PACKAGE, BUILT)


def read(path: Path) -> Any:
    return ELFFile(io.BytesIO(path.read_bytes()))


@pytest.mark.parametrize("libc", pack_libbpf.LIBCS)
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_an_object_needs_only_the_c_library_and_exports_what_the_agent_calls(
    libraries: Path, machine: str, libc: str
) -> None:
    elf = read(libraries / pack_libbpf.libbpf_path(machine, libc))
    assert elf.get_machine_arch() == {"x86_64": "x64", "aarch64": "AArch64"}[machine]
    tags = list(elf.get_section_by_name(".dynamic").iter_tags())
    assert {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"} <= NEEDED[libc]
    symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())
    assert {one.name for one in symbols if one["st_shndx"] != "SHN_UNDEF"} == set(libbpf.SIGNATURES)
    assert not elf.get_section_by_name(".symtab")


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_object_for_glibc_needs_2_28_at_most(libraries: Path, machine: str) -> None:
    elf = read(libraries / pack_libbpf.libbpf_path(machine, "glibc"))
    needed = [one.name for _, ones in elf.get_section_by_name(".gnu.version_r").iter_versions() for one in ones]
    assert needed
    assert max(tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in needed) <= (2, 28)


PROGRAM = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words)
{
    static char data[1 << 22];
    void *library = dlopen(words[1], RTLD_NOW);
    if (!library) { puts(dlerror()); return 1; }
    void *(*open_mem)(const void *, size_t, const void *) = dlsym(library, "bpf_object__open_mem");
    void *(*next)(void *, void *) = dlsym(library, "bpf_object__next_program");
    const char *(*name)(void *) = dlsym(library, "bpf_program__name");
    void *object = open_mem(data, fread(data, 1, sizeof data, stdin), NULL);
    for (void *program = NULL; object && (program = next(object, program));) puts(name(program));
    return object == NULL;
}
"""


@pytest.mark.skipif(not MUSL.exists(), reason="there is no musl: apt-get install musl")
def test_musl_loads_its_object_which_reads_a_bpf_object(libraries: Path, tmp_path: Path) -> None:
    machine = os.uname().machine
    (tmp_path / "program.c").write_text(PROGRAM)
    words = ["cc", "-target", f"{machine}-linux-musl", "-dynamic", f"-Wl,--dynamic-linker={MUSL}", "-o", "program"]
    environment = os.environ | dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(tmp_path / "cache"))
    subprocess.run([sys.executable, "-m", "ziglang", *words, "program.c"], cwd=tmp_path, env=environment, check=True)
    done = subprocess.run(
        [tmp_path / "program", libraries / pack_libbpf.libbpf_path(machine, "musl")],
        input=(BUILT / "objects" / machine / "trace_open.bpf.o").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.split()) > 1


@pytest.mark.slow
@pytest.mark.network
def test_equal_sources_give_equal_bytes(libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in another folder, and with sources that are fetched anew."""
    machine = os.uname().machine
    monkeypatch.setattr(pack_libbpf, "ARCHITECTURES", (machine,))
    again = pack_libbpf.build(PACKAGE, tmp_path)
    for libc in pack_libbpf.LIBCS:
        path = pack_libbpf.libbpf_path(machine, libc)
        assert (again / path).read_bytes() == (libraries / path).read_bytes()
    assert (again / "libraries.json").read_bytes() == (libraries / "libraries.json").read_bytes()


def test_another_function_that_the_agent_calls_makes_objects_outdated(libraries: Path, tmp_path: Path) -> None:
    assert pack_libbpf.is_built(PACKAGE, BUILT)
    module = tmp_path / "agent" / "bpf" / "libbpf.py"
    module.parent.mkdir(parents=True)
    text = (PACKAGE / "agent" / "bpf" / "libbpf.py").read_text()
    module.write_text(text)
    assert pack_libbpf.is_built(tmp_path, BUILT)
    module.write_text(
        text.replace('"bpf_enable_stats": ', '"bpf_link_detach": (c_int, [c_int]),\n    "bpf_enable_stats": ')
    )
    assert not pack_libbpf.is_built(tmp_path, BUILT)


def test_a_source_that_is_not_debians_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = [(one.archive, b"another") for one in pack_libbpf.SOURCES.values()]
    monkeypatch.setattr(pack_libbpf, "fetched", lambda: iter(fetched))
    with pytest.raises(GadgetError, match=r"the source of elfutils, has the SHA-256 [0-9a-f]{64}, not 6160"):
        pack_libbpf.build(PACKAGE, tmp_path)
    assert not (tmp_path / "libraries").exists()


def test_another_zig_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_libbpf, "ZIG", "0.1.0")
    with pytest.raises(GadgetError) as caught:
        pack_libbpf.build(PACKAGE, tmp_path)
    assert "0.1.0 is needed" in str(caught.value)
    assert caught.value.remedy
    assert "pip install ziglang==0.1.0" in caught.value.remedy
