"""One tool or script on this node: what is asked for, what is missing, and its lines."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent import other_tools

AGENT = [sys.executable, "-I", "-m", "kubectl_gadget.agent", "bcc"]
SUMS_UP = b"""
import sys, time
try:
    print("two", file=sys.stderr, flush=True)
    print("one", sys.argv[1], flush=True)
    # One long sleep might begin just after the signal came.
    while True:
        time.sleep(0.2)
except KeyboardInterrupt:
    print("sum", end="")
"""


def lines_of(script: bytes, *arguments: str, stop_after: str = "") -> list[dict[str, Any]]:
    """The agent's output for a script; it is stopped after the first line that has `stop_after`."""
    request = {"script": base64.b64encode(script).decode(), "language": "python", "arguments": arguments}
    with subprocess.Popen(AGENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        for line in (request, {"go": True}):
            agent.stdin.write(json.dumps(line).encode() + b"\n")
            agent.stdin.flush()
        found = []
        for text in agent.stdout:
            found.append(json.loads(text))
            if stop_after and stop_after in str(found[-1].get("out")):
                agent.stdin.write(b'{"stop": true}\n')
                agent.stdin.flush()
    return found


def test_lines_of_both_streams_come_and_what_is_printed_at_the_end() -> None:
    first, *lines, last = lines_of(SUMS_UP, "more", stop_after="one more")
    assert first["kernel"] == os.uname().release
    assert {line["out"] for line in lines if "out" in line} == {"one more", "sum"}
    assert [line["err"] for line in lines if "err" in line] == ["two"]
    assert last == {"exit": 0}


def test_how_a_script_ends_is_reported() -> None:
    assert lines_of(b"import sys; sys.exit(3)")[-1] == {"exit": 3}


def test_without_headers_the_kernel_and_the_package_are_named() -> None:
    (problem,) = [found for found in other_tools.problems({"tool": "x"}, ["x"], "") if "headers" in found["what"]]
    assert os.uname().release in problem["why"]
    assert f"linux-headers-{os.uname().release}" in problem["try"]
    assert not [
        found for found in other_tools.problems({"tool": "x"}, ["x"], "/somewhere") if "headers" in found["what"]
    ]


def test_an_unknown_tool_gets_the_nearest_names() -> None:
    (problem,) = [
        found for found in other_tools.problems({"tool": "execsnop"}, ["execsnoop"], "/x") if "tool" in found["what"]
    ]
    assert problem["try"] == "execsnoop"


def test_without_bcc_the_package_is_named() -> None:
    assert "bpfcc-tools" in other_tools.problems({"tool": "execsnoop"}, [], "/x")[0]["try"]


def test_headers_are_found_where_bcc_looks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    assert other_tools.headers(str(tmp_path)) == ""
    archive = tmp_path / "sys" / "kernel" / "kheaders.tar.xz"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert other_tools.headers(str(tmp_path)) == str(archive)
    build = tmp_path / "lib" / "modules" / os.uname().release / "build"
    (build / "include").mkdir(parents=True)
    assert other_tools.headers(str(tmp_path)) == str(build)


def test_a_tools_name_cannot_lead_out_of_the_tools_folder(tmp_path: Path) -> None:
    assert other_tools.command({"tool": "execsnoop", "arguments": ["-T"]}, "")[0] == "/usr/sbin/execsnoop-bpfcc"
    with pytest.raises(KeyError):
        other_tools.command({"tool": "../../tmp/x"}, str(tmp_path))
