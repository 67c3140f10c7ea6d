"""A session compiles no module, with the Python of the build; another compiles them itself."""

import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from zipfile import ZipFile

import pytest

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import pack_payload
from kubectl_gadget.gadgets.load import BUILT
from kubectl_gadget.gadgets.pack_payload import compiled_modules

PACKAGE = BUILT.parent
SESSION = "import kubectl_gadget.agent.session.session, kubectl_gadget.agent.sources.stream"
WITHOUT_COMPILING = f"import builtins; builtins.compile = None; {SESSION}"


@pytest.fixture(scope="module")
def modules() -> dict[str, bytes]:
    return compiled_modules(PACKAGE)


@pytest.fixture(scope="module")
def sources() -> set[str]:
    return set(pack_payload.find_parts(PACKAGE).modules)


def run(archive: Path, program: str) -> subprocess.CompletedProcess[bytes]:
    text = f"import sys; sys.path.insert(0, {str(archive)!r}); {program}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", text], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("magic", "program", "works"),
    [(MAGIC_NUMBER, WITHOUT_COMPILING, True), (b"\0\0\r\n", WITHOUT_COMPILING, False), (b"\0\0\r\n", SESSION, True)],
)
def test_what_a_session_imports_is_compiled(
    magic: bytes, program: str, works: bool, modules: dict[str, bytes], sources: set[str], tmp_path: Path
) -> None:
    with ZipFile(tmp_path / "agent.zip", "w") as archive:
        for path in sources:
            archive.write(PACKAGE / path, f"kubectl_gadget/{path}")
        for path, data in modules.items():
            archive.writestr(f"kubectl_gadget/{path}", magic + data[len(magic) :])
    done = run(tmp_path / "agent.zip", program)
    assert (done.returncode == 0) is works, done.stderr


def test_each_has_its_source_and_they_are_the_same_each_time(modules: dict[str, bytes], sources: set[str]) -> None:
    assert {path.removesuffix("c") for path in modules} < sources
    assert compiled_modules(PACKAGE) == modules


def test_a_module_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GadgetError, match="No module named 'kubectl_gadget'"):
        compiled_modules(tmp_path / "kubectl_gadget")
