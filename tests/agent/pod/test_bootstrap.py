"""The agent that travels: bootstrap.py and unpacking.py in a Python without our modules, and every way to fail.

The bootstrap is run as a pod runs it, by its text alone. What this machine's Python cannot be (too old, of musl,
incomplete) is pretended in the same process, by a line before the text.
"""

import ast
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus
from zipfile import ZipFile

import pytest

from kubectl_gadget.gadgets import pack_payload as building
from kubectl_gadget.wire.frames import Frame, FrameDecoder, FrameType, encode
from kubectl_gadget.wire.message import parse
from tests.waiting import PATIENCE, wait_until

_PYENV = (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3")
PYTHONS = [str(path) for path in (*sorted(Path("/usr/bin").glob("python3.[0-9]*[0-9]")), *sorted(_PYENV))]
PYTHONS = [path for path in PYTHONS if "/3.6." not in path and "/3.7." not in path and "/3.8." not in path]
"""From the oldest on with which an agent runs, 3.9."""
PYTHON = "/usr/bin/python3"
MACHINE = os.uname().machine
pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"there is no {PYTHON}"),
]


@pytest.fixture(scope="module")
def index() -> dict[str, object]:
    found: dict[str, object] = json.loads(building.build().read_bytes())
    return found


@pytest.fixture(scope="module")
def carried(index: dict[str, object]) -> bytes:
    return b"".join((building.BUILT / "payload" / f"{name}.xz").read_bytes() for name in ("common", MACHINE))


def digest_of(packed: bytes) -> str:
    """The SHA-256 of what it contains."""
    return hashlib.sha256(lzma.decompress(packed)).hexdigest()


class Pod:
    """A process that starts as a session in a pod does, with `folder` as the pod's own."""

    def __init__(
        self,
        index: dict[str, object],
        data: bytes,
        folder: Path | str,
        before: str = "",
        python: str = PYTHON,
        offer: str | None = None,
        words: tuple[str, ...] = ("session", "--gadgets="),
        agent: Path | str = "/nonexistent",
        contained: bool = False,
    ) -> None:
        """`agent` is the folder with a deployment's agent."""
        self.data = data
        offer = offer or f"{MACHINE}={len(data)}:{digest_of(data)}"
        environment = {"PATH": "/usr/bin:/bin", "KUBECTL_GADGET_RUN": str(folder), "KUBECTL_GADGET_HOST": ""}
        environment |= {"KUBECTL_GADGET_AGENT": str(agent), "KUBECTL_GADGET_CONTAINED": "1" if contained else ""}
        self.process = subprocess.Popen(
            [python, "-I", "-c", before + str(index["bootstrap"]), offer, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
        )
        self._decoder, self._frames = FrameDecoder(), list[Frame]()

    def frame(self) -> Frame:
        """The next frame; an AssertionError with what was said where there is none."""
        assert self.process.stdout is not None
        while not self._frames:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, self.said()
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def boot(self) -> str:
        """True if it has its agent; sends it when it has not."""
        frame = self.frame()
        assert frame.type == FrameType.BOOT
        if frame.payload.startswith(b"send"):
            self.send(encode(FrameType.PAYLOAD, self.data))
        return frame.payload.decode()

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def said(self) -> str:
        """What it wrote to its standard error until its end."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return said.decode()

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Fails when it ends before."""
        wait_until(condition, over=self._has_ended, state=lambda: self.said() if self._has_ended() else "")

    def _has_ended(self) -> bool:
        return self.process.poll() is not None

    def maps(self) -> str:
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def failure(self) -> str:
        """The one line with which it fails."""
        said = self.said()
        assert self.process.returncode not in (0, None)
        assert len(said.strip().splitlines()) == 1, said
        return said

    def end(self) -> None:
        self.said()
        assert self.process.returncode == 0


@pytest.mark.parametrize("python", PYTHONS)
def test_an_agent_comes_over_standard_input_and_says_hello(
    index: dict[str, object], carried: bytes, tmp_path: Path, python: str
) -> None:
    pod = Pod(index, carried, tmp_path, python=python)
    assert pod.boot() == f"send {MACHINE}"
    hello = pod.frame()
    assert hello.type == FrameType.HELLO
    assert "libbpf" not in json.dumps(parse(hello.payload)["problems"])
    assert "/memfd:libbpf-glibc.so.1 (deleted)" in pod.maps()
    assert "/libbpf.so.1" not in pod.maps(), "the machine's own library was used"
    pod.end()


def test_what_a_pod_has_is_not_sent_again(index: dict[str, object], carried: bytes, tmp_path: Path) -> None:
    for expected in (f"send {MACHINE}", "have"):
        pod = Pod(index, carried, tmp_path)
        assert pod.boot() == expected
        assert pod.frame().type == FrameType.HELLO
        pod.end()
    assert [path.name for path in tmp_path.glob("kubectl-gadget.*")] == [f"kubectl-gadget.{digest_of(carried)}"]


def test_a_kept_payload_that_was_changed_is_sent_again(
    index: dict[str, object], carried: bytes, tmp_path: Path
) -> None:
    kept = tmp_path / f"kubectl-gadget.{digest_of(carried)}"
    unpacked = lzma.decompress(carried)
    for spoilt in (b"", unpacked[:-1], b"import os" + unpacked, carried):
        kept.write_bytes(spoilt)
        pod = Pod(index, carried, tmp_path)
        assert pod.boot().startswith("send")
        assert pod.frame().type == FrameType.HELLO
        pod.end()
        assert kept.read_bytes() == unpacked


def test_a_pod_without_a_place_for_it_runs_it_from_memory(index: dict[str, object], carried: bytes) -> None:
    pod = Pod(index, carried, "/nonexistent")
    pod.boot()
    assert pod.frame().type == FrameType.HELLO
    pod.end()


@pytest.fixture
def deployed(carried: bytes, tmp_path: Path) -> Path:
    """The folder in which a deployment's pod finds its agent."""
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / f"{MACHINE}.xz").write_bytes(carried)
    return folder


def test_a_deployments_agent_comes_from_its_config_map_and_survives_the_next_one(
    index: dict[str, object], carried: bytes, tmp_path: Path, deployed: Path
) -> None:
    for _ in range(2):
        pod = Pod(index, carried, tmp_path, agent=deployed)
        assert pod.boot() == "have"
        assert pod.frame().type == FrameType.HELLO
        pod.end()
        # As when a newer client deploys: until its pod is replaced, the agent still answers.
        (deployed / f"{MACHINE}.xz").write_bytes(b"newer")


def test_the_main_process_of_a_pod_and_its_probe_start_from_the_config_map_and_print_nothing(
    index: dict[str, object], carried: bytes, tmp_path: Path, deployed: Path
) -> None:
    main = Pod(index, carried, tmp_path, agent=deployed, words=("idle", "--idle-timeout", "0"))
    marks = (tmp_path / "kubectl-gadget.pid", tmp_path / "kubectl-gadget.alive")
    main.wait_until(lambda: all(mark.exists() for mark in marks))
    probe = Pod(index, carried, tmp_path, agent=deployed, words=("alive",))
    assert probe.process.communicate(timeout=PATIENCE) == (b"", b"")
    assert probe.process.returncode == 0
    main.process.terminate()
    assert main.process.communicate(timeout=PATIENCE) == (b"", b"")
    assert main.process.returncode == 0


@pytest.fixture
def compiled(index: dict[str, object], carried: bytes, tmp_path: Path, deployed: Path) -> Path:
    """The copy of the payload that a pod's main process has made."""
    main = Pod(index, carried, tmp_path, agent=deployed, words=("idle", "--idle-timeout", "0"))
    name = f"kubectl-gadget.{digest_of(carried)}.[0-9a-f]???????"
    main.wait_until(lambda: list(tmp_path.glob(name)))
    main.process.terminate()
    main.end()
    return next(tmp_path.glob(name))


SAYS_WHERE = """
import atexit, os, sys
atexit.register(lambda: os.write(2, os.readlink(sys.modules["kubectl_gadget"].__spec__.loader.archive).encode()))
"""


def test_sessions_use_what_the_main_process_has_compiled(
    index: dict[str, object], carried: bytes, tmp_path: Path, compiled: Path
) -> None:
    with ZipFile(compiled) as copy, ZipFile(io.BytesIO(lzma.decompress(carried))) as payload:
        assert {name.removesuffix("c") for name in copy.namelist()} == {
            name.removesuffix("c") for name in payload.namelist()
        }
        assert not [name for name in copy.namelist() if name.endswith(".py")]
        sent = [name for name in payload.namelist() if name.endswith(".pyc")]
        assert sent
        assert all(copy.read(name) == payload.read(name) for name in sent)
    pod = Pod(index, carried, tmp_path, SAYS_WHERE)
    assert pod.boot() == "have"
    hello = pod.frame()
    assert "libbpf" not in json.dumps(parse(hello.payload)["problems"])
    assert pod.said() == str(compiled)


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o622), lambda path: os.chown(path, 65534, 65534)])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_copy_that_others_may_have_written_is_not_used(
    index: dict[str, object], carried: bytes, tmp_path: Path, compiled: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(compiled)
    pod = Pod(index, carried, tmp_path, SAYS_WHERE)
    assert pod.boot() == "have"
    assert pod.frame().type == FrameType.HELLO
    assert pod.said() == str(tmp_path / f"kubectl-gadget.{digest_of(carried)}")


@pytest.mark.parametrize("words", [("idle", "--idle-timeout", "0"), ("alive",), ("policies", "/policies")])
def test_a_pods_own_processes_never_ask_for_the_agent(
    index: dict[str, object], carried: bytes, tmp_path: Path, words: tuple[str, ...]
) -> None:
    pod = Pod(index, carried, tmp_path, words=words)
    assert "the ConfigMap holds another version of the agent. try: kubectl gadget deploy" in pod.failure()


def test_a_contained_agent_takes_no_agent_from_its_client(
    index: dict[str, object], carried: bytes, tmp_path: Path, deployed: Path
) -> None:
    (deployed / f"{MACHINE}.xz").write_bytes(lzma.compress(lzma.decompress(carried) + b"x"))
    words = ("session", "--contained", "--gadgets=trace_open")
    pod = Pod(index, carried, tmp_path, agent=deployed, words=words, contained=True)
    assert "the ConfigMap holds another version of the agent" in pod.failure()
    (deployed / f"{MACHINE}.xz").write_bytes(carried)
    pod = Pod(index, carried, tmp_path, agent=deployed, words=words, contained=True)
    assert pod.boot() == "have"
    assert parse(pod.frame().payload)["contained"] is True
    pod.end()


def test_an_image_that_has_the_same_agent_is_used(index: dict[str, object], carried: bytes, tmp_path: Path) -> None:
    built = tmp_path / "kubectl_gadget" / "built"
    built.mkdir(parents=True)
    digest = digest_of(carried)
    (built.parent / "agent").mkdir()
    (built.parent / "agent" / "__main__.py").write_text("def main(words): print('ours', *words)\n")
    before = f"import sys; sys.path.append({str(tmp_path)!r})\n"
    (built / "payload.sha256").write_text(digest)
    pod = Pod(index, carried, tmp_path, before)
    assert (
        pod.process.communicate(timeout=PATIENCE)[0] == encode(FrameType.BOOT, b"have") + b"ours session --gadgets=\n"
    )
    (built / "payload.sha256").write_text("0" * 64)
    other = Pod(index, carried, tmp_path / "none", before)
    assert other.boot().startswith("send"), "an image with another agent"
    assert other.frame().type == FrameType.HELLO
    other.end()


def test_libraries_come_from_the_pods_folder_where_memory_may_not_be_mapped(
    index: dict[str, object], carried: bytes, tmp_path: Path
) -> None:
    pod = Pod(index, carried, tmp_path, NO_MEMFD)
    pod.boot()
    assert parse(pod.frame().payload)["problems"] is not None
    assert f"{tmp_path}/libbpf-glibc.so.1" in pod.maps()
    pod.end()


NO_MEMFD = "import os\ndef no(*_): raise PermissionError(13, 'not here')\nos.memfd_create = no\n"
OLD = "import sys\nsys.version_info = (3, 8, 2)\nsys.version = '3.8.2 (default)'\n"
MUSL = "import os\ndef confstr(name): raise OSError(22, 'Invalid argument')\nos.confstr = confstr\n"
NO_LZMA = "import sys\nsys.modules['lzma'] = None\n"
NO_CTYPES = "import sys\nsys.modules['ctypes'] = None\n"


@pytest.mark.parametrize(
    ("before", "folder", "told"),
    [
        (OLD, "", "this image has Python 3.8.2, and the agent needs 3.9 or newer. try: --image "),
        (NO_CTYPES, "", "this image's Python is incomplete: "),
        (NO_LZMA, "", "this image's Python is incomplete: "),
        (NO_MEMFD, "/nonexistent", "the agent cannot be unpacked: no memfd ([Errno 13] not here), and /nonexistent/"),
    ],
)
def test_what_an_image_lacks_is_reported_in_one_line_with_a_remedy(
    index: dict[str, object], carried: bytes, tmp_path: Path, before: str, folder: str, told: str
) -> None:
    pod = Pod(index, carried, folder or tmp_path, before)
    if before not in (OLD, NO_LZMA):
        pod.boot()
    failure = pod.failure()
    assert told in failure
    assert "try: --image docker.io/library/python" in failure


def test_where_libraries_can_be_mapped_from_nowhere_hello_says_so(index: dict[str, object], carried: bytes) -> None:
    program = (
        f"{NO_MEMFD}os.memfd_create = lambda name, flags=1, real=REAL: no() if name.startswith('lib') else real(name)\n"
    )
    pod = Pod(index, carried, "/nonexistent", "import os\nREAL = os.memfd_create\n" + program)
    pod.boot()
    (problem,) = [one for one in parse(pod.frame().payload)["problems"] if "libbpf" in one["why"]]
    assert "cannot be mapped from memory or from /nonexistent" in problem["why"]
    assert "make image" in problem["try"]
    pod.end()


def test_the_object_for_another_c_library_is_tried_as_well(
    index: dict[str, object], carried: bytes, tmp_path: Path
) -> None:
    pod = Pod(index, carried, tmp_path, MUSL)
    pod.boot()
    assert "libbpf" not in json.dumps(parse(pod.frame().payload)["problems"])
    assert "/memfd:libbpf-glibc.so.1 (deleted)" in pod.maps()
    pod.end()


def test_another_architecture_is_named(index: dict[str, object], carried: bytes, tmp_path: Path) -> None:
    pod = Pod(index, carried, tmp_path, offer="riscv64=1:0,s390x=1:0")
    assert f"this node is {MACHINE}, and there are agents for riscv64, s390x only" in pod.failure()


def test_a_payload_that_is_cut_off_is_not_run(index: dict[str, object], carried: bytes, tmp_path: Path) -> None:
    pod = Pod(index, carried, tmp_path)
    assert pod.frame().payload.startswith(b"send")
    pod.send(encode(FrameType.PAYLOAD, carried)[:-1])
    assert f"truncated in transfer: {len(carried) + 7} of {len(carried) + 8} bytes. try: run it again" in pod.failure()
    assert not list(tmp_path.iterdir())


def test_a_payload_that_was_changed_is_not_run(index: dict[str, object], carried: bytes, tmp_path: Path) -> None:
    for changed in (b"X" + carried[1:], carried[:-99] + bytes(99), lzma.compress(b"X" + lzma.decompress(carried))):
        pod = Pod(index, carried, tmp_path, offer=f"{MACHINE}={len(changed)}:{digest_of(carried)}")
        assert pod.frame().payload.startswith(b"send")
        pod.send(encode(FrameType.PAYLOAD, changed))
        assert "changed in transfer" in pod.failure()
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bootstrap", "on_demand"])
def test_old_pythons_understand_the_texts_so_that_they_can_say_that_they_are_old(
    index: dict[str, object], name: str
) -> None:
    ast.parse(str(index[name]), feature_version=(3, 7))


def test_the_bootstrap_fits_into_a_url(index: dict[str, object]) -> None:
    assert len(quote_plus(str(index["bootstrap"]))) < 4096


def test_the_main_process_of_a_pod_on_demand_ends_by_itself_and_reaps(index: dict[str, object], tmp_path: Path) -> None:
    before = "import os\nif not os.fork(): os._exit(0)\n"
    environment = {"KUBECTL_GADGET_RUN": str(tmp_path)}
    command = [PYTHON, "-I", "-c", before + str(index["on_demand"]), "0.2"]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sys.version_info >= (3, 11)
