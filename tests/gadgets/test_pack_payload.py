"""What travels: the agent's modules as they are now, nothing but the standard library, and libbpf with its licences."""

import ast
import hashlib
import io
import json
import lzma
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import which

import pytest

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import pack_libbpf, pack_payload
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT

pytestmark = pytest.mark.compiled

PACKAGE = BUILT.parent
MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine of ELF."""
CONFIG_MAP = 1 << 20
OLDEST = [
    *map(str, (Path.home() / ".pyenv" / "versions").glob("3.9.*/bin/python3")),
    *filter(None, [which("python3.9")]),
]


def packed(built: Path, machine: str) -> bytes:
    return b"".join((built / "payload" / name).read_bytes() for name in (pack_payload.COMMON, f"{machine}.xz"))


class _Common(ast.NodeTransformer):
    """Removes what the payload does not have, or has in another form for Python 3.9."""

    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant("")
        elif isinstance(node, ast.Assign) and re.search(r" \| |Union", ast.unparse(node.value)):
            node.value = ast.Constant("")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "zip":
            node.keywords = []
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
        return node


def code(source: bytes) -> tuple[str, list[int]]:
    """Without docstrings and types; the lines of all statements."""
    tree = ast.parse(source)
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return ast.dump(_Common().visit(tree)), lines


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    pack_payload.build()
    return request.param, packed(BUILT, request.param)


def test_the_payload_has_all_modules_of_the_agent_and_their_imports() -> None:
    found = pack_payload.find_parts(PACKAGE)
    paths = [path for path in (PACKAGE / "agent").rglob("*.py") if path.name not in pack_payload.TEXTS]
    files = {path.relative_to(PACKAGE).as_posix() for path in paths}
    assert {name for name in found.modules if name.startswith("agent/")} == files
    assert {"errors.py", "wire/frames.py", "__init__.py", "wire/kernel_enums.txt"} <= set(found.modules)
    assert not [name for name in found.modules if name.split("/")[0] in ("agents", "cli", "kube", "rows", "run")]


def test_every_object_that_the_agent_opens_by_name_is_found() -> None:
    texts = (path.read_text() for path in (PACKAGE / "agent").rglob("*.py"))
    opened = {name for text in texts for name in re.findall(r'own_(?:elf|object|program)\("(\w+)"', text)}
    assert opened == set(pack_payload.find_parts(PACKAGE).objects)


def test_a_package_that_is_not_in_the_standard_library_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "kubectl_gadget"
    (package / "agent").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "agent" / "__init__.py").touch()
    main = package / "agent" / "__main__.py"
    main.write_text("def late():\n    import numpy\n")
    with pytest.raises(GadgetError, match=r"__main__\.py imports numpy"):
        pack_payload.find_parts(package)
    main.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n")
    assert "agent/__main__.py" in pack_payload.find_parts(package).modules


def test_the_payload_is_up_to_date(built: tuple[str, bytes]) -> None:
    machine, data = built
    archive = zipfile.ZipFile(io.BytesIO(lzma.decompress(data)))
    assert archive.testzip() is None
    for name in pack_payload.find_parts(PACKAGE).modules:
        sent, source = archive.read(f"kubectl_gadget/{name}"), (PACKAGE / name).read_bytes()
        if name.endswith(".py"):
            assert code(sent) == code(source)
            assert b'\n    """' not in sent
        else:
            assert sent == source
    index = json.loads((BUILT / "payload" / "index.json").read_bytes())
    assert index["payloads"][machine] == {
        "bytes": len(data),
        "sha256": hashlib.sha256(lzma.decompress(data)).hexdigest(),
    }


def test_libraries_are_of_its_architecture_and_have_versions_hashes_and_licences(built: tuple[str, bytes]) -> None:
    machine, data = built
    archive = zipfile.ZipFile(io.BytesIO(lzma.decompress(data)))
    manifest = json.loads(archive.read("kubectl_gadget/built/libraries/manifest.json"))
    assert manifest["architecture"] == machine
    assert [library["name"] for library in manifest["libraries"]] == sorted(pack_libbpf.SOURCES)
    for libc in pack_libbpf.LIBCS:
        elf = archive.read(f"kubectl_gadget/built/libraries/{pack_libbpf.libbpf_path(machine, libc)}")
        assert int.from_bytes(elf[18:20], "little") == MACHINES[machine]
    for library in manifest["libraries"]:
        assert re.match(r"\d", library["version"])
        assert re.fullmatch(r"[0-9a-f]{64}", library["sha256"])
        assert library["licence"]
        licence = archive.read(f"kubectl_gadget/licences/{library['name']}")
        assert b"icen" in licence or b"as-is" in licence
    for path, digest in manifest["files"].items():
        assert hashlib.sha256(archive.read(f"kubectl_gadget/{path}")).hexdigest() == digest


def test_the_payload_fits_into_a_config_map(built: tuple[str, bytes]) -> None:
    assert len(built[1]) < 0.6 * CONFIG_MAP


def test_equal_sources_give_equal_bytes(built: tuple[str, bytes], tmp_path: Path) -> None:
    for folder in ("objects", "libraries", "contained.json"):
        (tmp_path / folder).symlink_to(BUILT / folder)
    pack_payload.build(built=tmp_path)
    assert packed(tmp_path, built[0]) == built[1]
    assert sys.stdlib_module_names, "by which modules are judged"


def test_modules_use_nothing_that_python_3_9_does_not_have(tmp_path: Path) -> None:
    for name in pack_payload.find_parts(PACKAGE).modules:
        if name.endswith(".py"):
            path = tmp_path / "kubectl_gadget" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack_payload.for_nodes(PACKAGE / name))
    # Of enum and others, vermin would count the packages for older Pythons.
    words = ["-t=3.9-", "--violations", "--eval-annotations", "--no-tips"]
    words += [f"--backport={name}" for name in ("dataclasses", "enum", "importlib", "ipaddress", "typing")]
    done = subprocess.run(
        [sys.executable, "-m", "vermin", *words, str(tmp_path)], capture_output=True, text=True, check=False
    )
    newer = {line.strip() for line in done.stdout.splitlines() if "requires" in line or line.startswith("  ")}
    assert newer <= ONLY_WHERE_IT_IS_THERE


ONLY_WHERE_IT_IS_THERE = {
    "'binascii.a2b_base64(strict_mode)' requires !2, 3.11",
    "'typing.Self' member requires !2, 3.11",
    "'typing.dataclass_transform' member requires !2, 3.11",
}
"""For type checkers, or behind a question for Python's version."""


@pytest.mark.skipif(not OLDEST, reason="there is no Python 3.9")
def test_every_module_can_be_imported_by_python_3_9(built: tuple[str, bytes], tmp_path: Path) -> None:
    payload = tmp_path / "payload.zip"
    payload.write_bytes(lzma.decompress(built[1]))
    names = [name for name in pack_payload.find_parts(PACKAGE).modules if name.endswith(".py")]
    modules = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in names]
    modules = [f"kubectl_gadget.{name}" for name in modules if name not in ("__init__", "agent.__main__")]
    program = f"import sys, importlib; sys.path.insert(0, {str(payload)!r})\nfor name in {modules}: "
    done = subprocess.run([OLDEST[0], "-I", "-c", program + "importlib.import_module(name)"], check=False)
    assert done.returncode == 0
