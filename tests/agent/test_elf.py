"""Build ids and digests of files, and paths inside of other roots. Files come from containers, which may lie."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.elf import build_id, matches
from kubectl_gadget.agent.symbols.elf_functions import address_offset


def test_a_build_id_equals_what_readelf_reports() -> None:
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
def test_no_content_of_a_file_breaks_the_search(tmp_path: Path, data: bytes, head: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x7fELF\x02\x01" + head.ljust(58, b"\1") + data)
    with path.open("rb") as file:
        assert isinstance(build_id(file.fileno()), str)
        assert matches(file.fileno(), ["sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()])
    assert address_offset(str(path), 4096) is None or data
