"""trace ssl: this machine's OpenSSL, through the agent's own search for libraries, in processes before and after it."""

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.symbols.elf_functions import function_offsets
from kubectl_gadget.agent.symbols.uprobes import MappedFiles, Uprobes, has_multi
from kubectl_gadget.wire.client_messages import Library
from tests.bpf import map_shares
from tests.bpf.tracer import Tracer
from tests.conftest import why_no_bpf

TIMES = 7
TALK = f"""
import ssl, sys
sys.stdin.readline()
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing)
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); server.load_cert_chain(sys.argv[1])
there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
peer = server.wrap_bio(there, back, server_side=True)
for _ in range(4):
    for side in (tls, peer):
        try: side.do_handshake()
        except ssl.SSLWantReadError: pass
        there.write(outgoing.read()); incoming.write(back.read())
for number in range({TIMES}):
    tls.write(b"hello %d" % number)
    there.write(outgoing.read())
    assert peer.read(100) == b"hello %d" % number
"""


class WithLibraries(Tracer):
    """A gadget with uprobes, and the agent's search for where they go."""

    def _open(self, programs: Any) -> Any:
        object = super()._open(programs)
        libraries = [Library(files=tuple(item.files), functions=item.functions) for item in self.gadget.agent.libraries]
        self.uprobe_warnings: list[str] = []
        self.uprobes = Uprobes(object, libraries, lambda cgroup: True, self.uprobe_warnings.append)
        self.uprobes.prepare()
        return object

    def look(self) -> None:
        """As the session does, without its pause."""
        self.uprobes._next = 0.0
        self.uprobes.turn(time.monotonic())

    def __exit__(self, *error: Any) -> None:
        self.uprobes.close()
        super().__exit__(*error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    subprocess.run([*command, "-keyout", path, "-out", f"{path}.cert"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.cert").read_bytes())
    return path


def talker(certificate: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TALK, certificate], stdin=subprocess.PIPE)


def told(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["operation"], record["bytes"], record["data"]


EXPECTED = [(word, 7, f"hello {number}") for number in range(TIMES) for word in ("write", "read")]


@pytest.mark.bpf
def test_each_call_is_reported_once_with_its_data(certificate: Path) -> None:
    process = talker(certificate)
    with WithLibraries("trace_ssl", pid=process.pid, data_bytes=100) as tracer:
        # It has loaded the library before it waits for the line.
        while not any("libssl" in line for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()):
            pass
        try:
            tracer.look()
        except Failure as failure:
            pytest.skip(f"no uprobes here: {failure}")
        assert tracer.uprobe_warnings == []
        process.communicate(b"\n")
        records = tracer.records()
        assert tracer.lost == 0
    assert process.returncode == 0
    assert [told(record) for record in records] == EXPECTED
    assert {record["pid"] for record in records} == {process.pid}


@pytest.mark.bpf
def test_calls_that_never_return_leave_room_for_others(certificate: Path) -> None:
    """As when threads are killed in SSL_read()."""
    process = talker(certificate)
    with WithLibraries("trace_ssl", pid=process.pid, data_bytes=100) as tracer:
        while not any("libssl" in line for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()):
            pass
        try:
            tracer.look()
        except Failure as failure:
            pytest.skip(f"no uprobes here: {failure}")
        map_shares.fill(tracer, "gadget_thread_shares", "gadget_thread_states", share=1)
        process.communicate(b"\n")
        records = tracer.records()
        assert tracer.lost == 0
        # Its thread has ended.
        assert map_shares.entries(tracer, "gadget_thread_shares", share=0) == 0
    assert [told(record) for record in records] == EXPECTED


def links_open() -> int:
    found = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    return sum("perf_event" in name or "bpf_link" in name or "bpf-link" in name for name in found)


@pytest.mark.bpf
def test_a_file_of_which_one_place_cannot_be_followed_keeps_no_link(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.6 each place has a link of its own."""
    monkeypatch.setattr("kubectl_gadget.agent.symbols.uprobes.has_multi", lambda release: False)
    process = talker(certificate)
    with WithLibraries("trace_ssl", pid=process.pid) as tracer:
        while not any("libssl" in line for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()):
            pass
        lib, made = libbpf.load(), list[str]()
        call = lib.call

        def fail_at_each_third(name: str, *arguments: Any) -> int:
            if name == "bpf_program__attach_uprobe_opts":
                made.append(name)
                if len(made) % 3 == 0:  # of each file, of which this machine may have several in use
                    raise Failure("a place", 22, [])
            return call(name, *arguments)

        before = links_open()
        monkeypatch.setattr(lib, "call", fail_at_each_third)
        try:
            tracer.look()
            tracer.uprobes.free()
        finally:
            monkeypatch.undo()
            process.communicate(b"\n")
        assert len(made) >= 3
        assert any("cannot be traced" in warning for warning in tracer.uprobe_warnings)
        assert links_open() == before


def talked(certificate: Path, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of a process that runs already."""
    process = talker(certificate)
    with WithLibraries("trace_ssl", pid=process.pid, **parameters) as tracer:
        while not any("libssl" in line for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()):
            pass
        tracer.look()
        process.communicate(b"\n")
        return tracer.records()


@pytest.mark.bpf
def test_only_calls_that_take_long_are_reported_on_request(certificate: Path) -> None:
    assert talked(certificate, min=3_600_000_000) == []
    slow = talked(certificate, min=100, all_calls=True)
    assert slow
    assert all(record["duration"] >= 100_000 for record in slow)


@pytest.mark.bpf
def test_without_being_asked_for_no_data_is_sent_and_handshakes_only_on_request(certificate: Path) -> None:
    records = talked(certificate, all_calls=True)
    assert {record["data"] for record in records} == {None}
    assert [record["operation"] for record in records if record["operation"] != "handshake"] == [
        "write",
        "read",
    ] * TIMES
    assert [record["operation"] for record in records].count("handshake") == 8


@pytest.mark.bpf
def test_links_are_removed_when_no_process_maps_the_file_any_more(certificate: Path, tmp_path: Path) -> None:
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libssl.so" in line)
    copy = tmp_path / "libssl.so.3"
    copy.write_bytes(Path(library).read_bytes())
    with WithLibraries("trace_ssl") as tracer:
        tracer.look()
        before = tracer.uprobes.attached
        code = f"import ctypes, sys; ctypes.CDLL({str(copy)!r}); print(flush=True); sys.stdin.read()"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        tracer.look()
        assert tracer.uprobes.attached > before
        process.communicate()
        tracer.look()
        assert tracer.uprobes.attached == before


def test_functions_are_found_in_libraries_and_not_in_damaged_files(tmp_path: Path) -> None:
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libssl.so" in line)
    assert ssl.OPENSSL_VERSION
    assert function_offsets(library, ["SSL_write", "SSL_never"]).keys() == {"SSL_write"}
    data = bytearray(Path(library).read_bytes())
    data[32:64] = os.urandom(32)
    (tmp_path / "broken").write_bytes(data)
    (tmp_path / "short").write_bytes(b"\x7fELF\x02\x01")
    for name in ("broken", "short"):
        assert function_offsets(str(tmp_path / name), ["SSL_write"]) == {}


def test_a_name_may_be_the_end_of_another_one() -> None:
    """As malloc is of __libc_malloc in libc."""
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line)
    assert function_offsets(library, ["malloc", "free", "alloc"]).keys() == {"malloc", "free"}


def test_only_processes_of_wanted_cgroups_are_examined() -> None:
    assert MappedFiles(lambda cgroup: False, lambda name: True).look() == {}
    assert MappedFiles(lambda cgroup: True, lambda name: name.startswith("libssl.so")).look()


@pytest.mark.root
@pytest.mark.skipif(why_no_bpf() is not None, reason=str(why_no_bpf()))
def test_a_run_reports_once_that_no_program_uses_such_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.symbols.uprobes.PATIENCE", 0.0)
    monkeypatch.setattr("kubectl_gadget.agent.symbols.uprobes.SCAN_SECONDS", 0.0)
    with Tracer("trace_ssl") as tracer:
        found: list[str] = []
        nowhere = [Library(files=("libnowhere.so",), functions={})]
        uprobes = Uprobes(tracer.object, nowhere, lambda cgroup: True, found.append)
        uprobes.turn(time.monotonic())
        uprobes.turn(time.monotonic())
        uprobes.close()
    (warning,) = found
    assert "libnowhere.so" in warning


def test_links_without_perf_came_with_6_6() -> None:
    assert [has_multi(release) for release in ("5.10.0", "6.5.9", "6.6.0-arm", "10.1", "odd")] == [
        *(False, False, True, True, False)
    ]
