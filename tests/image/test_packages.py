"""dpkg's status and the SBOM, from the files that the image build keeps; and modules that compile to equal bytes."""

import json
import marshal
import subprocess
import sys
from pathlib import Path

from packages import packages, read_status, sbom, status
from root import equal_bytes

CONTROL = """Package: {name}
Version: 1:2.0+b1-1
Architecture: amd64
Maintainer: Somebody <somebody@example.org>
Description: a package
 of several lines
"""
INFO = {
    "kept.control": CONTROL.format(name="kept").encode(),
    "kept.list": b"./\n./usr/\n./usr/lib/kept.so\n./usr/bin/gone\n",
    "licence.control": CONTROL.format(name="licence").encode(),
    "licence.list": b"./usr/share/doc/licence/copyright\n./usr/bin/gone\n",
}
KEPT = ["usr/lib/kept.so", "usr/share/doc/licence/copyright"]


def test_a_package_of_which_only_the_licence_is_kept_is_not_installed() -> None:
    (found,) = packages(INFO, KEPT)
    assert (found.name, found.version, found.files) == ("kept", "1:2.0+b1-1", ("usr/lib/kept.so",))


def test_the_status_can_be_read_again() -> None:
    text = status(packages(INFO, KEPT)).decode()
    assert text.startswith("Package: kept\nStatus: install ok installed\nVersion: ")
    assert read_status(text) == [{"Package": "kept", "Version": "1:2.0+b1-1", "Architecture": "amd64"}]


def test_equal_packages_give_an_equal_sbom_and_others_another() -> None:
    installed = read_status(status(packages(INFO, KEPT)).decode())
    one = sbom("agent", "1", installed, 0)
    assert one == sbom("agent", "1", list(installed), 0)
    other = json.loads(sbom("agent", "1", [], 0))
    assert json.loads(one)["documentNamespace"] != other["documentNamespace"]
    assert json.loads(one)["packages"][1]["externalRefs"][0]["referenceLocator"] == (
        "pkg:deb/debian/kept@1%3A2.0%2Bb1-1?arch=amd64&distro=debian-13"
    )


SOURCE = """
def f(a=("x y", 1.5, b"bytes", 10**20, frozenset({"p", "q", "r"}))):
    return {"x y": 1.5, "z": (b"bytes", "p q")}, a in {"p", "q", "r", "x y", 3, None}
"""


def test_what_a_process_did_before_does_not_show_in_a_compiled_module(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, {path!r}); from root import equal_bytes; "
        "code = compile({source!r}, '/m.py', 'exec'); keep = {keep}; sys.stdout.buffer.write(equal_bytes(code))"
    )
    found = set()
    for seed, keep in (
        ("0", "0"),
        ("1", "0"),
        ("2", "list(code.co_consts) * 2, code.co_consts[0], list(code.co_names)"),
    ):
        text = program.format(path=str(Path(__file__).parents[2] / "image"), source=SOURCE, keep=keep)
        done = subprocess.run(
            [sys.executable, "-c", text], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
    names: dict[str, object] = {}
    exec(marshal.loads(found.pop()), names)
    assert names["f"]()[1] is False  # type: ignore[operator]


def test_equal_bytes_keeps_the_code() -> None:
    code = compile(SOURCE, "/m.py", "exec")
    assert marshal.loads(equal_bytes(code)) == code
