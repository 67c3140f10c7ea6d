"""Build ids and digests of files, and paths inside of other roots. Files come from containers, which may lie."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.elf.build_ids import build_id, matches
from kubectl_gadget.agent.elf.elf_symbols import address_offset
from kubectl_gadget.agent.host.file_systems import open_inside


def test_a_build_id_is_that_which_others_read() -> None:
    notes = subprocess.run(["readelf", "-n", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Build ID: ([0-9a-f]+)", notes)
    if found is None:
        pytest.skip("/bin/sh has no build id here")
    with open("/bin/sh", "rb") as file:
        assert build_id(file.fileno()) == found[1]
        assert matches(file.fileno(), [f"build-id:{found[1]}"])
        assert not matches(file.fileno(), [f"build-id:{found[1][::-1]}"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=64))
def test_no_file_is_too_strange(tmp_path: Path, data: bytes, head: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x7fELF\x02\x01" + head.ljust(58, b"\1") + data)
    with path.open("rb") as file:
        assert isinstance(build_id(file.fileno()), str)
        assert matches(file.fileno(), ["sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()])
    assert address_offset(str(path), 4096) is None or data


def test_links_are_followed_inside_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hostname").write_text("inside")
    (tmp_path / "absolute").symlink_to("/etc/hostname")
    (tmp_path / "above").symlink_to("../../../../etc/hostname")
    for name in ("/absolute", "/above", "/etc/hostname"):
        file = open_inside(str(tmp_path), name)
        try:
            assert os.read(file, 100) == b"inside"
        finally:
            os.close(file)
    with pytest.raises(FileNotFoundError):
        open_inside(str(tmp_path), "/bin/sh")
