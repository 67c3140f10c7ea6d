"""CI runs on this machine, with real programs: what COMMAND keeps, what is found, and what is never green."""

import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.behavior.baseline import read_baseline
from kubectl_gadget.ci.steps import ask
from kubectl_gadget.demo.runc import BundleSpec, cgroup2_mount, write_bundle, write_image_root
from tests.conftest import why_no_containers
from tests.gadget_run import GADGET, PROJECT
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]
STEP = f"{' '.join(GADGET)} ci step"
POLICY = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: no-secret}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{index: 1, type: string}]
    selectors:
    - matchArgs: [{index: 1, operator: Postfix, values: [the-secret]}]
"""


def ci(*words: str, folder: Path, verb: str = "run") -> "subprocess.CompletedProcess[str]":
    """`ci run --local WORDS` in a folder, or another command of ci."""
    local = () if verb in ("stop", "judge") else ("--local",)
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [*GADGET, "ci", verb, *local, *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def gadget(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """`WORDS` in a folder."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [*GADGET, *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )


def test_a_command_keeps_its_output_and_exit_code_and_is_attached_before(tmp_path: Path) -> None:
    script = f"cat {tmp_path}/first; (cat {tmp_path}/first >/dev/null; :); echo out; echo err >&2; exit 3"
    (tmp_path / "first").write_text("first\n")
    ran = ci(
        *("--expect", f'path == "{tmp_path}/first"', "--report", "json=r.json", "--", "sh", "-c", script),
        folder=tmp_path,
    )
    assert (ran.stdout, ran.returncode) == ("first\nout\n", 3)
    assert "err\n" in ran.stderr
    lines = ran.stderr.splitlines()
    attached = next(number for number, line in enumerate(lines) if "attached after" in line)
    assert attached < lines.index("err")
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["verdict"], found["command_code"], found["exit_code"]) == ("passed", 3, 3)
    shell, *cats = found["activity"]["processes"]
    assert f"/bin/sh -c {script}".split(maxsplit=2)[1:] == shell["arguments"][1:]
    assert [cat["parent"] for cat in cats] == [shell["id"]] * 2  # the second one's parent is a copy of the shell


def test_findings_let_the_command_finish_and_know_their_step(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    script = f"{STEP} build; cat secret; {STEP} test; cat secret; touch done"
    reports = ("--report", "json=r.json", "--record", "r.kgr")
    ran = ci("--fail-on", 'path == "secret"', *reports, "--", "sh", "-c", script, folder=tmp_path)
    assert ran.returncode == 4, ran.stderr
    assert (tmp_path / "done").exists()
    found = json.loads((tmp_path / "r.json").read_text())
    (finding,) = found["checks"][0]["findings"]
    assert (finding["count"], finding["step"]) == (2, "build")
    assert [step["name"] for step in found["steps"]] == ["build", "test"]
    info = gadget("recording", "info", "r.kgr", "-o", "json", folder=tmp_path)
    assert json.loads(info.stdout)["steps"] == found["steps"]
    assert "  step     build, from " in gadget("recording", "info", "r.kgr", folder=tmp_path).stdout
    again = gadget("replay", "r.kgr", "trace", "open", "-o", "json", folder=tmp_path)
    said = [line for line in again.stderr.splitlines() if line.startswith("step: ")]
    assert said == [f"step: {step['name']} (from {step['time']})" for step in found["steps"]]
    assert [json.loads(line)["path"] for line in again.stdout.splitlines()].count("secret") == 2
    test = gadget(
        "replay",
        "r.kgr",
        "--step",
        "test",
        "trace",
        "open",
        "-o",
        "json",
        "--filter",
        'path == "secret"',
        folder=tmp_path,
    )
    assert len(test.stdout.splitlines()) == 1
    assert test.stdout.splitlines()[0] == [line for line in again.stdout.splitlines() if '"secret"' in line][1]
    quiet = gadget("replay", "r.kgr", "trace", "open", "-o", "json", "-q", folder=tmp_path)
    assert (quiet.stdout, "step:" in quiet.stderr) == (again.stdout, False)


def test_only_the_processes_of_the_command_are_seen(tmp_path: Path) -> None:
    (tmp_path / "ours").touch()
    script = "cat ours; (setsid sh -c 'cat ours' &) ; wait; cat ours"
    with subprocess.Popen(["sh", "-c", "while :; do cat strangers; done"], cwd=tmp_path, stderr=-3) as stranger:
        ran = ci(
            *("--expect", 'path == "ours"', "--fail-on", 'path == "strangers"', "--", "sh", "-c", script),
            folder=tmp_path,
        )
        stranger.kill()
    assert ran.returncode == 0, ran.stderr


def test_assertions_count_within_steps(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "assertions:\n"
        "  - {name: two in test, what: open, condition: path == 'f', count: 2, step: test}\n"
        "  - {name: three, what: open, condition: path == 'f', count: '>= 4'}\n"
        "  - {name: curl, what: fact program, condition: program.endsWith('/curl'), count: 0}\n"
        "  - {name: runs cat, what: fact program, condition: program.endsWith('/cat'), count: '>= 1'}\n"
    )
    (tmp_path / "f").touch()
    script = f"{STEP} build; cat f; {STEP} test; cat f; cat f"
    ran = ci("--assert", "a.yaml", "--report", "junit=r.xml", "--", "sh", "-c", script, folder=tmp_path)
    assert ran.returncode == 4, ran.stderr
    cases = {case.get("name"): case for case in ET.parse(tmp_path / "r.xml").iter("testcase")}
    failed = [name for name, case in cases.items() if case.find("failure") is not None]
    assert failed == ["three"]
    assert cases["three"].get("line") == "3"


def test_a_policy_that_matches_is_a_finding_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "the-secret").touch()
    with subprocess.Popen(["sh", "-c", "while :; do cat the-secret; done"], cwd=tmp_path) as stranger:
        clean = ci("-f", "policy.yaml", "--", "true", folder=tmp_path)
        stranger.kill()
    assert clean.returncode == 0, clean.stderr
    ran = ci("-f", "policy.yaml", "--report", "sarif=r.sarif", "--", "cat", "the-secret", folder=tmp_path)
    assert ran.returncode == 4, ran.stderr
    (result,) = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "policy/no-secret"
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "policy.yaml"
    assert "the-secret" in result["message"]["text"]


def test_a_baseline_of_the_same_is_green_and_what_is_new_is_found(tmp_path: Path) -> None:
    run = ("--", "sh", "-c")
    first = ci("--report", "baseline=b.yaml", *run, "cat b /etc/hostname; true", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    same = ci("--baseline", "b.yaml", "--fail-on-new", "all", *run, "cat b /etc/hostname; true", folder=tmp_path)
    assert same.returncode == 0, same.stderr
    warned = ci("--baseline", "b.yaml", *run, "cat b /etc/hostname; id >/dev/null; true", folder=tmp_path)
    assert warned.returncode == 0, warned.stderr
    assert "warning: command: new: " in warned.stderr
    failed = ci(
        *("--baseline", "b.yaml", "--fail-on-new", "program", *run),
        "cat b /etc/hostname; id >/dev/null; true",
        folder=tmp_path,
    )
    assert failed.returncode == 4, failed.stderr
    assert "/id" in next(line for line in failed.stderr.splitlines() if "error: command: new: " in line)


CHANGES = (
    ("chmod 755 a", "chmod 4755 a", "sets mode 4755"),
    (":", "cp a /usr/local/lib/libnss_evil_test.so.2", "writes /usr/local/lib/libnss_evil_test.so.2"),
    (
        "cat p/site-packages/yes-1.0.dist-info/METADATA",
        "cat p/site-packages/yes-2.0.dist-info/METADATA",
        "yes 1.0 → 2.0",
    ),
    (":", "cat p/site-packages/evil/__init__.py", "uses python evil"),
)


@pytest.mark.parametrize(("before", "after", "said"), CHANGES, ids=[after for _, after, _ in CHANGES])
def test_a_change_that_patterns_used_to_cover_is_found(before: str, after: str, said: str, tmp_path: Path) -> None:
    packages = tmp_path / "p" / "site-packages"
    for name in ("yes-1.0.dist-info/METADATA", "yes-2.0.dist-info/METADATA", "evil/__init__.py"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text("x")
    for number in range(20):
        (packages / f"known{number}.txt").write_text("x")
    script = "echo a > a; cat p/site-packages/known*; cat a; {}; true"
    try:
        first = ci("--report", "baseline=b.yaml", "--", "sh", "-c", script.format(before), folder=tmp_path)
        assert first.returncode == 0, first.stderr
        check = ("--baseline", "b.yaml", "--fail-on-new", "all", "--", "sh", "-c")
        same = ci(*check, script.format(before), folder=tmp_path)
        assert same.returncode == 0, same.stderr
        changed = ci(*check, script.format(after), folder=tmp_path)
    finally:
        Path("/usr/local/lib/libnss_evil_test.so.2").unlink(missing_ok=True)
    assert changed.returncode == 4, changed.stderr
    assert any("error: " in line and said in line for line in changed.stderr.splitlines()), changed.stderr


TEMPORARY = """
import os, random, string, tempfile
def name(): return "".join(random.choices(string.ascii_lowercase, k=8))
for _ in range(3):
    descriptor, path = tempfile.mkstemp(prefix="RECORD", dir=".")
    os.write(descriptor, b"x")
    os.replace(path, "RECORD")
    for ending in (".upload.txt", ".tmp", ""):
        tempfile.NamedTemporaryFile(prefix=name(), suffix=ending, dir=".").write(b"x")
    with tempfile.TemporaryDirectory(prefix=name(), dir=".") as folder:
        open(os.path.join(folder, "inside"), "w").close()
    tempfile.TemporaryFile(dir=".").write(b"x")
"""


def test_names_that_a_job_makes_and_takes_away_are_equal_in_each_run(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(TEMPORARY)
    run = ("--", "/usr/bin/python3", "-I", "job.py")
    first = ci("--report", "baseline=b.yaml", *run, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    same = ci("--baseline", "b.yaml", "--fail-on-new", "all", "--report", "json=r.json", *run, folder=tmp_path)
    assert same.returncode == 0, same.stderr
    (check,) = json.loads((tmp_path / "r.json").read_text())["checks"]
    assert check["findings"] == []
    written = {fact.value for fact in read_baseline(tmp_path / "b.yaml").behavior.facts if "write" in fact.value}
    assert any(value.endswith("/RECORD") for value in written)
    assert any(value.endswith("/<tmp>/inside") for value in written)


def test_a_baseline_of_several_runs_has_what_each_of_them_did(tmp_path: Path) -> None:
    by_chance = "echo x > log-$(head -c 400 /dev/urandom | tr -dc a-z | cut -c -8).txt"
    count = "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; cat file$n; true"
    (tmp_path / "job.sh").write_text(f"{by_chance}; {count}")
    for number in range(3):
        (tmp_path / f"file{number}").write_text("x")
    ran = ci("--runs", "3", "--report", "baseline=b.yaml", "--", "sh", "job.sh", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = read_baseline(tmp_path / "b.yaml").behavior
    (coverage,) = found.coverage.values()
    assert (coverage.runs, coverage.complete_runs) == (3, 3)
    assert (tmp_path / "n").read_text() == "3\n"
    runs = {fact.value.rpartition("/")[2]: fact.runs for fact in found.facts if fact.value.startswith("read ")}
    assert runs["job.sh"] == 3
    assert runs["file<n>"] == 3 if "file<n>" in runs else [runs[f"file{number}"] for number in range(3)] == [1, 1, 1]
    assert [rule.of for rule in found.learned] == ["path"]
    (tmp_path / "n").write_text("1\n")
    judge = ("--baseline", "b.yaml", "--fail-on-new", "all", "--", "sh")
    again = ci(*judge, "job.sh", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    other = ci(*judge, "-c", ". ./job.sh; echo x > log", folder=tmp_path)
    assert other.returncode == 4, other.stderr
    failed = ci("--runs", "3", "--", "sh", "-c", "echo x >> ran; exit 3", folder=tmp_path)
    assert failed.returncode == 3, failed.stderr
    assert (tmp_path / "ran").read_text() == "x\n", "a run that failed is the last"


def test_a_program_that_was_not_found_is_in_the_table(tmp_path: Path) -> None:
    ran = ci("--report", "markdown=r.md", "--", "bash", "-c", "no-such-program-of-ours; true", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    summary = (tmp_path / "r.md").read_text()
    (line,) = [line for line in summary.splitlines() if "Ended with an error" in line]
    assert "exit code 127" in line
    assert "a program that was not found" in summary


AGENT = """
import os, signal, sys
from pathlib import Path

def is_agent(pid):
    return b"session" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")

children = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()
(agent,) = [int(pid) for pid in children if is_agent(pid)]
"""
"""A program whose parent is the run: finds the run's agent."""


def test_lost_events_are_never_green(tmp_path: Path) -> None:
    # More opens than fit into the ring while the agent does not read it.
    script = (
        f"{AGENT}os.kill(agent, signal.SIGSTOP)\n"
        "for _ in range(20000): os.close(os.open('/etc/hostname', 0))\n"
        "os.kill(agent, signal.SIGCONT)\n"
    )
    ran = ci(
        *("--ring-size", "64Ki", "--fail-on", 'path == "/nope"', "--report", "junit=r.xml"),
        *("--", sys.executable, "-c", script),
        folder=tmp_path,
    )
    assert ran.returncode == 5, ran.stderr
    assert "events were lost" in ran.stderr
    cases = ET.parse(tmp_path / "r.xml").iter("testcase")
    errors = [case.get("name") for case in cases if case.find("error") is not None]
    assert errors == ["everything was seen", 'path == "/nope"']


def test_a_command_goes_on_when_the_agent_dies_and_the_verdict_is_inconclusive(tmp_path: Path) -> None:
    script = (
        f"{AGENT}os.kill(agent, signal.SIGKILL)\n"
        "while 'ended before' not in Path('err').read_text(): pass\n"
        "print('finished')\n"
    )
    with (tmp_path / "err").open("w") as err:
        ran = subprocess.run(
            [*GADGET, "ci", "run", "--local", "--", sys.executable, "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (ran.stdout, ran.returncode) == ("finished\n", 5), (tmp_path / "err").read_text()


def test_signals_reach_the_command_which_decides(tmp_path: Path) -> None:
    script = 'trap "echo got; exit 9" TERM; echo up; while :; do read line; done'
    with subprocess.Popen(
        [*GADGET, "ci", "run", "--local", "--", "sh", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout
        assert run.stdin
        assert run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGTERM)
        run.stdin.write("\n")
        run.stdin.close()
        assert run.stdout.read() == "got\n"
        assert run.wait(PATIENCE) == 9


@pytest.mark.root
def test_a_recording_that_is_incomplete_is_never_green(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", tmp_path], check=True)
    try:
        script = (
            "for i in $(seq 3000); do : </etc/hostname; done; dd if=/dev/zero of=full 2>/dev/null; stat -c %U r.kgr"
        )
        ran = ci("--run-as", "nobody", "--report", "record=r.kgr", "--", "sh", "-c", script, folder=tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert (ran.returncode, ran.stdout) == (1, "nobody\n"), ran.stderr
    assert "error: the recording r.kgr is incomplete" in ran.stderr


def test_a_process_that_outlives_the_command_is_never_green(tmp_path: Path) -> None:
    script = "(sleep 300; cat the-file) >/dev/null 2>&1 & echo $! >pid"
    ran = ci("--fail-on", 'path == "the-file"', "--", "setsid", "-w", "sh", "-c", script, folder=tmp_path)
    with pytest.raises(ChildProcessError):  # it was left running, and is init's now
        os.waitpid(int((tmp_path / "pid").read_text()), os.WNOHANG)
    os.killpg(os.getpgid(int((tmp_path / "pid").read_text())), signal.SIGKILL)
    assert ran.returncode == 5, ran.stderr
    assert "2 processes that COMMAND started still ran when the tracing ended" in ran.stderr


def test_a_signal_ends_the_linger(tmp_path: Path) -> None:
    command = [*GADGET, "ci", "run", "--local", "--linger", "1000s", "-v", "--", "true"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        while "COMMAND has ended" not in (line := run.stderr.readline()):
            assert line
        run.send_signal(signal.SIGTERM)
        assert run.stderr.read()
        assert run.wait(PATIENCE) == 0


def test_a_signal_before_the_start_is_no_verdict(tmp_path: Path) -> None:
    stopper = tmp_path / "stop.py"
    stopper.write_text(
        "import os, signal, sys\n"
        "from kubectl_gadget.cli.main import run\n"
        "from kubectl_gadget.ci.job_run import CiRun\n"
        "serve = CiRun._serve\n"
        "def stopped(self, surroundings):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return serve(self, surroundings)\n"
        "CiRun._serve = stopped\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    words = [sys.executable, str(stopper), "ci", "run", "--local", "--report", "json=r.json", "--", "touch", "ran"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    ran = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ran.returncode == 128 + signal.SIGTERM, ran.stderr
    assert "COMMAND was not started" in ran.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "r.json").exists()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Path]:
    """A folder in which `ci start` runs."""
    ran = ci("--fail-on", 'path == "the-file"', folder=tmp_path, verb="start")
    assert ran.returncode == 0, ran.stderr
    yield tmp_path
    ci(folder=tmp_path, verb="stop")


def test_start_and_stop_trace_steps_that_are_processes_of_their_own(started: Path) -> None:
    (started / "the-file").touch()
    subprocess.run(
        [*GADGET, "ci", "step", "deploy"], cwd=started, env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True
    )
    subprocess.run(["cat", "the-file"], cwd=started, check=True)
    again = ci(folder=started, verb="start")
    assert again.returncode == 2
    assert "a run is in progress" in again.stderr
    ran = ci("--report", "json=r.json", folder=started, verb="stop")
    assert ran.returncode == 4, ran.stderr
    (finding,) = json.loads((started / "r.json").read_text())["checks"][0]["findings"]
    assert finding["step"] == "deploy"
    assert ci(folder=started, verb="stop").returncode == 2


def test_facts_of_the_machines_processes_are_asserted_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "assertions:\n"
        "  - {name: no id, what: fact program, condition: program.endsWith('/id'), count: 0}\n"
        "  - {name: id, what: fact program, condition: container == '(host)' && program.endsWith('/id')}\n"
    )
    started = ci("--assert", "a.yaml", folder=tmp_path, verb="start")
    assert started.returncode == 0, started.stderr
    subprocess.run(["id"], stdout=subprocess.DEVNULL, check=True)
    ran = ci("--report", "junit=r.xml", "--report", "baseline=b.yaml", folder=tmp_path, verb="stop")
    failed = [
        case.get("name") for case in ET.parse(tmp_path / "r.xml").iter("testcase") if case.find("failure") is not None
    ]
    assert (ran.returncode, failed) == (4, ["no id"]), ran.stderr
    assert any(fact.container == "(host)" for fact in read_baseline(tmp_path / "b.yaml").behavior.facts)


def test_a_start_that_died_is_noticed_and_never_green(started: Path) -> None:
    lock = next(
        line.split()[4]
        for line in Path("/proc/locks").read_text().splitlines()
        if f":{(started / '.kubectl-gadget-ci' / 'lock').stat().st_ino} " in line
    )
    os.kill(int(lock), signal.SIGKILL)
    ran = ci("--report", "junit=r.xml", folder=started, verb="stop")
    assert ran.returncode == 5, ran.stderr
    assert "the run died before kubectl gadget ci stop" in ran.stderr
    names = [
        case.get("name") for case in ET.parse(started / "r.xml").iter("testcase") if case.find("error") is not None
    ]
    assert names == ["everything was seen", 'path == "the-file"']


def test_a_run_that_a_step_has_ended_is_never_green(started: Path) -> None:
    ask(started / ".kubectl-gadget-ci", {"stop": True})
    ran = ci(folder=started, verb="stop")
    assert ran.returncode == 5, ran.stderr
    assert "the tracing ended before kubectl gadget ci stop" in ran.stderr


def test_an_expression_that_cannot_be_compiled_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    ran = ci("--fail-on", "pth == 1", "--", "touch", "ran", folder=tmp_path)
    assert ran.returncode == 2
    assert "--fail-on: there is no column 'pth'" in ran.stderr
    assert not (tmp_path / "ran").exists()


def test_without_rights_it_says_what_is_missing_and_runs_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    ran = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            *GADGET,
            "ci",
            "run",
            "--local",
            "--",
            "touch",
            str(tmp_path / "x"),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 1
    assert "without the capabilities" in ran.stderr
    assert "sudo" in ran.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers()))
def test_a_container_that_command_starts_itself_is_traced(tmp_path: Path) -> None:
    """`ci run -- runc run`: the container's processes are COMMAND's, whatever cgroup they are in."""
    busybox, mount = str(shutil.which("busybox")), cgroup2_mount()
    write_image_root(tmp_path / "image", busybox)
    name = f"kg-ci-{os.getpid()}"
    script = "cat /etc/hostname; cat /etc/passwd >/dev/null & wait; exit 7"
    spec = BundleSpec(
        *(name, name, "", name, name, None, "", ["/bin/sh", "-c", script]),
        uid=0,
        cgroups_path=f"/{name}",
        sandbox_pid=None,
    )
    write_bundle(tmp_path / "bundle", tmp_path / "image", spec)
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    (tmp_path / "bundle" / "config.json").write_text(json.dumps({**config, "annotations": {}}))  # it is of no pod
    runc = ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path / "bundle"), name]
    own_mounts = f'mount --bind {mount} /sys/fs/cgroup; exec "$@"'
    try:
        ran = ci(
            *("--fail-on", 'path == "/etc/passwd"', "--expect", 'path == "/etc/hostname"', "--report", "json=r.json"),
            *("--", "unshare", "--mount", "sh", "-ec", own_mounts, "sh", *runc),
            folder=tmp_path,
        )
    finally:
        subprocess.run([*runc[:3], "delete", "--force", name], capture_output=True, check=False)
    assert ran.returncode == 7, ran.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert [(check["kind"], check["status"]) for check in found["checks"]] == [
        ("fail-on", "findings"),
        ("expect", "passed"),
    ]
    assert not found["warnings"]


def test_a_command_that_asks_a_daemon_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "docker").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "docker").chmod(0o755)
    ran = ci("--report", "markdown=r.md", "--", "./docker", "run", "x", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "warning: COMMAND ran docker: containers that a daemon starts" in ran.stderr
    assert "**Not covered**: COMMAND ran docker" in (tmp_path / "r.md").read_text()


def test_causes_of_failures_are_checks_of_the_run(tmp_path: Path) -> None:
    script = "import socket\nfor _ in range(9): socket.socket().connect_ex(('127.0.0.1', 9))"
    command = ("--diagnose", "--record", "r.kgr", "--report", "json=r.json", "--report", "junit=r.xml")
    ran = ci(*command, "--fail-on-finding", "warning", "--", sys.executable, "-c", script, folder=tmp_path)
    assert ran.returncode == 4, ran.stderr
    checks = {check["name"]: check for check in json.loads((tmp_path / "r.json").read_text())["checks"]}
    (found,) = checks["connection-refused"]["findings"]
    assert found["explanation"]["confidence"] == "proven"
    assert {row["error"] for row in found["evidence"]} == {"ECONNREFUSED"}
    junit = ET.parse(tmp_path / "r.xml").getroot()
    assert junit.attrib["failures"] == "1"
    reports = [word for kind in ("json", "sarif", "markdown") for word in ("--report", f"{kind}=j.{kind}")]
    asked = ("ci", "judge", "r.kgr", "--diagnose", "--fail-on-finding", "warning", *reports)
    judged = subprocess.run([*GADGET, *asked], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120)
    assert judged.returncode == 4, judged.stderr
    assert "was recorded with" not in judged.stderr
    again = {check["name"]: check for check in json.loads((tmp_path / "j.json").read_text())["checks"]}
    assert [each["fingerprint"] for each in again["connection-refused"]["findings"]] == [found["fingerprint"]]
    for kind in ("sarif", "markdown"):
        assert "connection-refused" in (tmp_path / f"j.{kind}").read_text()
