"""States, and what memory may be used for."""

from kubectl_gadget.linux.object_states import protection_text


def test_protections_are_written_as_in_proc_maps() -> None:
    assert [protection_text(bits) for bits in (0, 1, 3, 5, 7, 0xFFFFFFFF)] == ["---", "r--", "rw-", "r-x", "rwx", ""]
