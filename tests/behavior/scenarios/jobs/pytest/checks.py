import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(30))
def test_file(tmp_path: Path, number: int) -> None:
    with tempfile.NamedTemporaryFile("w", dir=tmp_path, suffix=".txt") as file, tempfile.TemporaryDirectory() as folder:
        file.write("x")
        Path(folder, "state.db").write_text("1")
        Path(folder, "state.db").rename(Path(folder, "state.bak"))


def test_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("create table prices (name, price)")
        base.executemany("insert into prices values (?, ?)", [(str(n), n) for n in range(100)])


def test_server() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    server.accept()[0].close()
    client.close()
    server.close()


def test_program() -> None:
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"
    assert subprocess.run("echo 2", shell=True, capture_output=True, check=True).stdout == b"2\n"
