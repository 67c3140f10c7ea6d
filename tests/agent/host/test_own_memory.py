"""Files of a cgroup, and whether its memory is scarce."""

from pathlib import Path

import pytest

from kubectl_gadget.agent.host.own_memory import OwnMemory, own_memory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("limit", "used", "cached", "is_scarce"),
    [("max", 500, 0, False), ("512", 380, 0, False), ("512", 390, 0, True), ("512", 500, 130, False)],
    ids=["no limit", "some is left", "little is left", "what is cached is dropped first"],
)
def test_memory_is_scarce_near_the_limit(tmp_path: Path, limit: str, used: int, cached: int, is_scarce: bool) -> None:
    (tmp_path / "memory.max").write_text(f"{limit if limit == 'max' else int(limit) * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{used * MIB}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon {(used - cached) * MIB}\nfile {cached * MIB}\ninactive_file {cached * MIB}\nactive_file 0\n"
    )
    assert OwnMemory(str(tmp_path)).is_scarce() is is_scarce


def test_a_cgroup_without_these_files_has_no_limit(tmp_path: Path) -> None:
    assert not OwnMemory(str(tmp_path)).is_scarce()
    assert isinstance(own_memory().is_scarce(), bool)
