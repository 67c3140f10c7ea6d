"""`kubectl gadget advise …` from recordings: what goes to which stream, into which file, and with which exit code."""

import json
from pathlib import Path
from typing import TextIO

import pytest
import yaml

from kubectl_gadget import gadgets
from kubectl_gadget.advise import advise_run
from kubectl_gadget.advise.uses import SeenUses
from kubectl_gadget.cli.main import run
from kubectl_gadget.recording import layout
from kubectl_gadget.run.run_options import RunOptions
from tests.advise import test_seccomp
from tests.advise.flows import DB, WEB, flow, recording
from tests.cli.sample_gadgets import TRACE_OPEN


class Kept:
    """Files of the format that --record writes, and what is read of them."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.made, self.asked = folder, dict[str, SeenUses](), list[RunOptions]()
        read = advise_run.add_recordings

        def add(options: RunOptions, order: advise_run.AdviceOrder, stderr: TextIO) -> int:
            self.asked.append(options)
            files = options.replay.files if options.replay else ()
            if not self.made.keys() >= set(map(str, files)):
                return read(options, order, stderr)
            for file in map(str, files):
                order.recording.runs += self.made[file].runs
                order.recording.inventory.add(self.made[file].inventory)
                order.recording.add(self.made[file].uses)
            return 0

        patch.setattr(advise_run, "add_recordings", add)
        patch.setattr(gadgets, "load_gadget", lambda _: TRACE_OPEN)

    def write(self, made: SeenUses) -> str:
        path = self.folder / f"{len(self.made)}.kgr"
        path.write_bytes(layout.MAGIC)
        self.made[str(path)] = made
        return str(path)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(tmp_path, monkeypatch)


@pytest.fixture
def flows(kept: Kept) -> str:
    return kept.write(recording(flow(WEB, "egress", "10.96.0.3", 80), flow(DB, "ingress", "10.0.0.1", 5432)))


@pytest.fixture
def calls(kept: Kept) -> str:
    use = test_seccomp.use
    return kept.write(test_seccomp.recording(use(WEB, "mkdir"), use(DB, "bind")))


def test_standard_output_is_yaml_and_nothing_else(flows: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", "networkpolicy", "--from", flows]) == 0
    output, errors = capsys.readouterr()
    assert [item["metadata"]["name"] for item in yaml.safe_load_all(output)] == ["db", "web"]
    assert "watched for 10 h" in errors
    assert "is less than a day" in errors
    assert "Not complete" in output.splitlines()[1]


def test_json_is_one_list(flows: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", "networkpolicy", "--from", flows, "-o", "json", "--format", "cilium", "-q"]) == 0
    output, errors = capsys.readouterr()
    assert {item["kind"] for item in json.loads(output)["items"]} == {"CiliumNetworkPolicy"}
    assert all(line.startswith("warning: ") for line in errors.splitlines())


def test_a_recording_is_narrowed_by_namespace_and_pod(
    kept: Kept, flows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["advise", "networkpolicy", WEB.name, "-n", "shop", "-c", "main", "--from", flows]) == 0
    (asked,) = kept.asked
    selection = asked.selection
    assert (selection.namespace, selection.pods, selection.containers) == ("shop", (WEB.name,), ("main",))


def test_when_nothing_was_seen_there_is_no_advice(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", "networkpolicy", "--from", kept.write(recording())]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert "nothing was observed" in errors


def test_recordings_are_joined_into_one(flows: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", "networkpolicy", "--from", flows, "--from", flows]) == 0
    assert "watched for 20 h in 2 runs" in capsys.readouterr().err


def test_a_check_shows_what_would_have_been_blocked_and_exits_4(
    flows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = tmp_path / "policies.yaml"
    run(["advise", "networkpolicy", "--from", flows])
    policies.write_text(capsys.readouterr().out)
    assert run(["advise", "networkpolicy", "--from", flows, "--check", str(policies)]) == 0
    output, errors = capsys.readouterr()
    assert output == ""
    assert "0 of 2 flows would have been blocked" in errors

    policies.write_text(policies.read_text().replace("port: 5432", "port: 1"))
    assert run(["advise", "networkpolicy", "--from", flows, "--check", str(policies)]) == 4
    output = capsys.readouterr().out
    assert "service data/db" in output
    assert "80/TCP" in output
    assert run(["advise", "networkpolicy", "--from", flows, "--check", str(policies), "-o", "json"]) == 4
    assert {item["pod"] for item in json.loads(capsys.readouterr().out)} == {WEB.name, DB.name}


def test_one_profile_is_json_and_several_go_into_a_directory(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use = test_seccomp.use
    assert run(["advise", "seccomp", "--from", kept.write(test_seccomp.recording(use(WEB, "mkdir")))]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert "mkdir" in alone["syscalls"][0]["names"]
    calls = kept.write(test_seccomp.recording(use(WEB, "mkdir"), use(DB, "bind")))

    assert run(["advise", "seccomp", "--from", calls]) == 0
    output, errors = capsys.readouterr()
    assert list(yaml.safe_load_all(output))[1] == alone
    assert "--directory" in errors

    assert run(["advise", "seccomp", "--from", calls, "--directory", str(tmp_path / "profiles")]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "profiles" / "shop_deployment_web_main.json").read_text()) == alone
    assert (tmp_path / "profiles" / "data_statefulset_db_main.json").exists()


def test_an_earlier_profile_is_added_to(kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = tmp_path / "earlier.json"
    rule = {"names": ["swapon"], "action": "SCMP_ACT_ALLOW"}
    earlier.write_text(json.dumps({"defaultAction": "SCMP_ACT_KILL", "syscalls": [rule]}))
    calls = kept.write(test_seccomp.recording(test_seccomp.use(WEB, "mkdir")))
    assert run(["advise", "seccomp", "--from", calls, "--merge", str(earlier)]) == 0
    merged = json.loads(capsys.readouterr().out)
    assert merged["defaultAction"] == "SCMP_ACT_KILL"
    assert {"swapon", "mkdir"} <= {name for found in merged["syscalls"] for name in found["names"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seccomp", "--from", "/nowhere"], "No such file"),
        (["seccomp", "--from", "pyproject.toml"], "not a recording"),
        (["networkpolicy", "--from", "FLOWS", "--timeout", "1s"], "--timeout and --from"),
        (["networkpolicy", "--from", "FLOWS", "-l", "a=b"], "--from"),
        (["networkpolicy", "--check", "/nowhere"], "No such file"),
        (["networkpolicy", "--check", "FLOWS", "--format", "cilium"], "--format and --check"),
        (["networkpolicy", "--format", "Cilium"], "did you mean cilium"),
        (["seccomp", "--merge", "/nowhere"], "No such file"),
        (["networkpolicy", "--from", "FLOWS", "--record", "x"], "--record and --from"),
        (["other"], "unknown advisor"),
    ],
)
def test_mistakes_are_found_before_anything_is_watched(
    words: list[str], message: str, flows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["advise", *(flows if word == "FLOWS" else word for word in words)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors


@pytest.mark.parametrize("name", ["networkpolicy", "seccomp", "capabilities", "filesystem"])
def test_help_fits_two_screens(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") <= 48
    assert f"kubectl gadget advise {name}" in text


def test_patches_go_into_a_file_each_with_the_command_for_it(
    calls: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["advise", "seccomp", "--from", calls, "--format", "patch", "--directory", str(tmp_path / "patches")]
    assert run(words) == 0
    assert capsys.readouterr().out == ""
    text = (tmp_path / "patches" / "shop_deployment_web_main.yaml").read_text()
    assert "kubectl patch deployment web -n shop --patch-file FILE" in text
    assert yaml.safe_load(text)["metadata"] == {"name": "web", "namespace": "shop"}
