"""The process between `ci start` and `ci stop`: what it says when it fails, and whose files it reads."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO

import pytest

from kubectl_gadget.ci import background
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.reports.model import RunReport

FIRST = RunReport("1", "here", "", 0, incomplete=("it died",))
DONE = RunReport("1", "here", "", 1)


def finishes(log: TextIO, folder: Path, attached: Callable[[], object]) -> RunReport:
    """A run that is over at once."""
    attached()
    return DONE


def stopped(folder: Path) -> RunReport:
    """The report of a run that ends by itself."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return background.stop(folder)
        except GadgetError as error:
            # It still holds the lock.
            if "does not answer" not in str(error) or time.monotonic() > deadline:
                raise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_the_result_is_that_of_the_folder_that_was_opened(folder: Path, tmp_path: Path) -> None:
    def moved(log: TextIO, own: Path, attached: Callable[[], object]) -> RunReport:
        folder.rename(tmp_path / "elsewhere")
        folder.mkdir(mode=0o777)
        attached()
        (own / "here").touch()
        return DONE

    background.start(folder, moved, FIRST)
    assert stopped(tmp_path / "elsewhere").seconds == 1
    assert (tmp_path / "elsewhere" / "here").exists()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["result.json", "result.json.new", "log"])
def test_links_in_the_folder_are_not_followed(name: str, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("as before")
    folder.mkdir()
    (folder / name).symlink_to(target)
    background.start(folder, finishes, FIRST)
    stopped(folder)
    assert target.read_text() == "as before"


def test_a_folder_that_is_a_link_or_that_others_can_write_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    folder.symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match=r"Not a directory|symbolic link"):
        background.start(folder, finishes, FIRST)
    (tmp_path / "other").chmod(0o777)
    with pytest.raises(UsageError, match="can be written by other users"):
        background.start(tmp_path / "other", finishes, FIRST)


def test_no_other_user_can_hold_the_lock(folder: Path) -> None:
    background.start(folder, finishes, FIRST)
    assert stat.S_IMODE((folder / "lock").stat().st_mode) == 0o600
    stopped(folder)


def test_an_error_before_the_attach_keeps_its_exit_code_and_remedy(folder: Path) -> None:
    def refuses(*_: object) -> NoReturn:
        raise UsageError("--fail-on: nonsense", "another one")

    with pytest.raises(GadgetError, match="--fail-on: nonsense") as caught:
        background.start(folder, refuses, FIRST)
    assert (caught.value.exit_code, caught.value.remedy) == (2, "another one")


def test_an_unexpected_error_is_in_the_log(folder: Path) -> None:
    def breaks(log: TextIO, own: Path, attached: Callable[[], object]) -> NoReturn:
        raise ZeroDivisionError("a fault of ours")

    with pytest.raises(GadgetError, match="its log is"):
        background.start(folder, breaks, FIRST)
    assert "ZeroDivisionError: a fault of ours" in (folder / "log").read_text()
    assert os.listdir(folder)
