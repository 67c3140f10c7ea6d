"""The socket of a job's steps."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.ci.steps import Marks, NoRun, Request, ask, serving, step_answer
from kubectl_gadget.errors import UsageError


def with_server(folder: Path, act: Callable[[], Any]) -> tuple[Any, Marks]:
    """The result of `act` in a thread, while a run serves in the folder."""
    marks = Marks()

    async def answer(request: Request) -> dict[str, Any]:
        return step_answer(marks, request)

    async def main() -> Any:
        async with serving(folder, answer):
            return await asyncio.to_thread(act)

    return asyncio.run(main()), marks


def test_a_step_begins_before_the_answer(tmp_path: Path) -> None:
    found, marks = with_server(tmp_path, lambda: ask(tmp_path, {"step": "build"}))
    assert found == {"step": "build"}
    assert marks.names == ["build"]
    assert marks.at(marks.times_ns[0] - 1) == ""
    assert marks.at(marks.times_ns[0]) == "build"
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[31m", "x" * 201, 7, None])
def test_names_that_cannot_be_shown_are_refused(tmp_path: Path, name: object) -> None:
    def act() -> None:
        with pytest.raises(UsageError, match="name"):
            ask(tmp_path, {"step": name})

    assert with_server(tmp_path, act)[1].names == []


@pytest.mark.parametrize("sent", [b"nonsense\n", b"[]\n", b"x" * 100_000 + b"\n", b"{}\n", b""])
def test_whatever_a_process_sends_the_next_step_works(tmp_path: Path, sent: bytes) -> None:
    def act() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            with contextlib.suppress(BrokenPipeError):
                client.sendall(sent)
        return ask(tmp_path, {"step": "next"})

    assert with_server(tmp_path, act)[1].names == ["next"]


def test_only_chosen_users_may_mark_steps(tmp_path: Path) -> None:
    async def answer(request: Request) -> dict[str, Any]:
        return {"step": "x"}

    async def main(*users: int) -> Any:
        async with serving(tmp_path, answer, frozenset(users)):
            return await asyncio.to_thread(ask, tmp_path, {"step": "x"})

    assert asyncio.run(main(os.geteuid())) == {"step": "x"}
    with pytest.raises(UsageError, match="may mark steps"):
        asyncio.run(main(os.geteuid() + 1))


def test_a_folder_with_a_long_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    folder.mkdir(parents=True)
    assert with_server(folder, lambda: ask(folder, {"step": "s"}))[1].names == ["s"]


def test_without_a_run_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match="no run of kubectl gadget ci answers in"):
        ask(tmp_path, {"step": "build"})
