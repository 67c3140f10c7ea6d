"""--debuginfo in a real profile, and in its replay."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.agent.burners import PROGRAMS, compile_c
from tests.gadget_run import GADGET

pytestmark = [pytest.mark.bpf, pytest.mark.skipif(not shutil.which("objcopy"), reason="needs objcopy")]


def printed(*words: "str | Path") -> str:
    return subprocess.run([*GADGET, *words], check=True, capture_output=True, text=True, timeout=120).stdout


def test_a_profile_and_its_replay_name_functions_of_a_stripped_program(tmp_path: Path) -> None:
    options = ("-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-Wl,--build-id")
    program, path = compile_c(tmp_path / "burner", PROGRAMS / "burner.c", *options), tmp_path / "run.kgr"
    files = tmp_path / "files"
    files.mkdir()
    subprocess.run(["objcopy", "--only-keep-debug", program, files / "any"], check=True)
    subprocess.run(["strip", program], check=True)
    run = ("profile", "cpu", "-o", "folded")
    with subprocess.Popen([program]) as process:
        try:
            where = ("--local", "--host", "--pid", str(process.pid), "--timeout", "2s")
            live = printed(*run, *where, "--debuginfo", files, "--record", path)
        finally:
            process.kill()
    assert ";main;burn;heavy;spin " in live
    without = printed("replay", path, *run)
    assert "heavy" not in without
    assert "[burner]" in without
    assert printed("replay", path, *run, "--debuginfo", files) == live
