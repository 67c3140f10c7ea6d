"""Paths as programs compare them."""

import pytest

from kubectl_gadget.filters.pushdown import PATH_BYTES, PATHS, read_paths, table, tail


def test_a_tail_has_the_components_leaf_first() -> None:
    assert tail("/etc/ssl//certs/") == b"certs\0ssl\0etc\0"


def test_the_root_means_any() -> None:
    assert read_paths("/etc,/") == []


@pytest.mark.parametrize("text", ["etc", "/etc/../root", "/a,", "/" + "x" * PATH_BYTES, ",".join(["/a"] * (PATHS + 1))])
def test_what_cannot_be_compared_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|in it|longer"):
        read_paths(text)


def test_the_table_has_the_size_that_the_program_has() -> None:
    packed = table(read_paths("/etc,/root/.ssh"))
    assert len(packed) == PATHS * (4 + PATH_BYTES)
    assert packed[:8] == b"\4\0\0\0etc\0"
