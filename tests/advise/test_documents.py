"""Parts of workloads, for kubectl patch; and files of advisors."""

from pathlib import Path
from typing import TextIO

import pytest

from kubectl_gadget.advise import capabilities, filesystem, networkpolicy, seccomp
from kubectl_gadget.advise.documents import (
    ContainerPatch,
    check_writable,
    make_directory,
    patch,
    read_text,
    write_text,
    write_whole,
)
from kubectl_gadget.advise.uses import Recipe
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.kube.inventory import Workload


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("Deployment", "To apply this part, saved as FILE (--directory DIR): kubectl patch deployment web -n shop"),
        ("Job", "A Job's pods cannot be changed"),
        ("Pod", "A pod's security context cannot be changed"),
    ],
)
def test_how_to_apply_a_patch_is_the_end_of_its_comments(kind: str, hint: str) -> None:
    found = patch(Workload("shop", kind, "web"), [ContainerPatch("main")], iter(["why"]), "file")
    why, last = found.comments
    assert (why, found.name) == ("why", "file")
    assert last.startswith(hint)


# Files of advisors.


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "advice.yaml"
    write_text(path, "old")

    def stop(file: TextIO) -> None:
        file.write("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(GadgetError, match=r"advice\.yaml cannot be written: No space left on device"):
        write_whole(path, stop)
    assert read_text(str(path)) == "old"


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="binary: is not UTF-8 text"):
        read_text(str(tmp_path / "binary"))
    with pytest.raises(UsageError, match="cannot be written"):
        check_writable(tmp_path / "nowhere" / "file")
    with pytest.raises(GadgetError, match="cannot be created"):
        make_directory(tmp_path / "binary" / "below")


@pytest.mark.parametrize("advisor", [capabilities, filesystem, networkpolicy, seccomp])
def test_each_advisor_says_what_it_watches(advisor: object) -> None:
    recipe = getattr(advisor, "RECIPE")  # noqa: B009
    assert isinstance(recipe, Recipe)
    assert f"advise.{recipe.name}" in str(getattr(advisor, "__name__", ""))
    assert recipe.sources
