"""What travels: the agent's modules as they are now, nothing but the standard library, and libbpf with its licences."""

import ast
import hashlib
import io
import json
import lzma
import re
import sys
import zipfile
from pathlib import Path

import pytest

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import pack_payload
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT
from kubectl_gadget.gadgets.pack_payload import PACKAGES

pytestmark = pytest.mark.compiled

PACKAGE = BUILT.parent
MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine of ELF."""
CONFIG_MAP = 1 << 20


def packed(built: Path, machine: str) -> bytes:
    return b"".join((built / "payload" / name).read_bytes() for name in (pack_payload.COMMON, f"{machine}.xz"))


def code(source: bytes) -> tuple[str, list[int]]:
    """Without docstrings; the lines of all statements."""
    tree = ast.parse(source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    for node in statements:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
    return ast.dump(tree), [node.lineno for node in statements]


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
    assert [library["soname"] for library in manifest["libraries"]] == [pack_payload.SONAME, *PACKAGES]
    for library in manifest["libraries"]:
        elf = archive.read(f"kubectl_gadget/built/libraries/{library['soname']}")
        assert int.from_bytes(elf[18:20], "little") == MACHINES[machine]
        assert hashlib.sha256(elf).hexdigest() == library["sha256"]
        assert re.match(r"[\d:]", library["version"])
        assert b"icense" in archive.read(f"kubectl_gadget/licences/{library['package']}")
    for path, digest in manifest["files"].items():
        assert hashlib.sha256(archive.read(f"kubectl_gadget/{path}")).hexdigest() == digest


def test_the_payload_fits_into_a_config_map(built: tuple[str, bytes]) -> None:
    assert len(built[1]) < 0.8 * CONFIG_MAP


def test_equal_sources_give_equal_bytes(built: tuple[str, bytes], tmp_path: Path) -> None:
    for folder in ("objects", "libraries", "contained.json"):
        (tmp_path / folder).symlink_to(BUILT / folder)
    pack_payload.build(built=tmp_path)
    assert packed(tmp_path, built[0]) == built[1]
    assert sys.stdlib_module_names, "by which modules are judged"
