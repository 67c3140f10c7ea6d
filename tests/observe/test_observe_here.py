"""`kubectl gadget observe` with real pods on this machine."""

import base64
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.conftest import why_no_bpf, why_no_containers
from tests.gadget_run import GADGET

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]
TIMES = 31
EDITOR = Path(__file__).parent / "programs" / "editor.c"


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPods]:
    if why_no_bpf():
        pytest.skip(str(why_no_bpf()))
    state = Path("/run") / f"kubectl-gadget-observe-{tmp_path_factory.getbasetemp().parent.name}"
    if not shutil.which("gcc"):
        pytest.skip("there is no C compiler")
    with DemoPods(state) as found:
        editor = found.image_root / "usr" / "bin" / "vi"
        editor.parent.mkdir(parents=True)
        subprocess.run(["gcc", "-static", "-O2", "-o", editor, EDITOR], check=True)
        yield found


@contextmanager
def observe(*arguments: str) -> Iterator[list[str]]:
    """Runs the command while the block does its deed; its lines are in the list afterwards."""
    command = [*GADGET, "observe", "--local", *arguments]
    found: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first.startswith("tracing"), first + process.stderr.read()
        yield found
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "lost: 0" in errors
    found += out.splitlines()


def run(pods: DemoPods, name: str, script: str) -> int | None:
    """Runs a shell script as the pod's only container; its exit code."""
    return pods.run_short("default", name, ["/bin/sh", "-c", script]).containers["main"].exit_code


def test_programs_of_a_pod_are_reported_in_lines_from_the_first_to_the_last(pods: DemoPods) -> None:
    script = "/bin/cat /etc/hosts; /bin/false; (exit 7); /bin/sh -c 'kill -9 $$'; exit 13"
    with observe("lines", "-n", "default", "-c", "main") as lines:
        run(pods, "lines", script)
    shell = f'default/lines /bin/sh -c "{script}"'
    assert [line for line in lines if "runc" not in line] == [
        f"🚀 process {shell}",
        "🚀 process default/lines /bin/cat /etc/hosts",
        "💥 exit    default/lines /bin/cat /etc/hosts 0",
        "🚀 process default/lines /bin/false",
        "💥 exit    default/lines /bin/false 1",
        f"💥 exit    {shell} 7",
        '🚀 process default/lines /bin/sh -c "kill -9 $$"',
        '💥 exit    default/lines /bin/sh -c "kill -9 $$" SIGKILL',
        f"💥 exit    {shell} 13",
    ]


def test_json_reports_parents_and_the_pod_and_each_short_process_once(pods: DemoPods) -> None:
    script = f"i=0; while [ $i -lt {TIMES} ]; do /bin/true x$i; i=$((i+1)); done"
    with observe("json", "-n", "default", "-o", "json") as lines:
        run(pods, "json", script)
    events = [json.loads(line) for line in lines]
    executed = [event["process_exec"] for event in events if "process_exec" in event]
    true = [event for event in executed if event["process"]["binary"] == "/bin/true"]
    assert [event["process"]["arguments"] for event in true] == [f"x{number}" for number in range(TIMES)]
    (shell,) = [event["process"] for event in executed if event["process"]["binary"] == "/bin/sh"]
    assert {event["parent"]["exec_id"] for event in true} == {shell["exec_id"]}
    assert {event["process"]["pod"]["name"] for event in true} == {"json"}
    assert all(event["process"]["in_init_tree"] for event in true)
    ended = [event["process_exit"]["process"]["exec_id"] for event in events if "process_exit" in event]
    # the runtime's own processes end there, too
    wanted = sorted([shell["exec_id"], *(event["process"]["exec_id"] for event in true)])
    assert sorted(identity for identity in ended if identity in wanted) == wanted
    assert base64.b64decode(shell["exec_id"]).endswith(f":{shell['pid']}".encode())


def test_the_tree_shows_which_process_executed_which_program(pods: DemoPods) -> None:
    with observe("tree", "-n", "default", "-c", "main", "--tree") as lines:
        run(pods, "tree", "/bin/sh -c '/bin/true | /bin/cat'; exit 3")
    text = [re.sub(r"─ \d+ ", "─ PID ", line) for line in lines if "runc" not in line]
    assert text[0].startswith("default/tree main on ")
    assert text[1:3] == [
        "└─ PID /bin/sh -c \"/bin/sh -c '/bin/true | /bin/cat'; exit 3\"  exit 3",
        '   └─ PID /bin/sh -c "/bin/true | /bin/cat"  exit 0',
    ]
    assert sorted(line[9:] for line in text[3:]) == ["PID /bin/cat  exit 0", "PID /bin/true  exit 0"]
    assert [line[:8] for line in text[3:]] == ["      ├─", "      └─"]


def test_connections_and_names_belong_to_the_process_that_makes_them(pods: DemoPods) -> None:
    script = "httpd -p 127.0.0.1:8081; wget -q -O - http://127.0.0.1:8081/ ; wget -q -O - http://127.0.0.1:8082/"
    with observe("talk", "-n", "default", "--flows", "-o", "json", "-e", "exec,connect,accept,close") as lines:
        run(pods, "talk", f"ip link set lo up; {script}; :")
    events = [json.loads(line) for line in lines]
    executed = {event["process_exec"]["process"]["exec_id"] for event in events if "process_exec" in event}
    connects = [event["process_connect"] for event in events if "process_connect" in event]
    accepts = [event["process_accept"] for event in events if "process_accept" in event]
    assert [(event["destination_port"], event.get("error")) for event in connects] == [
        (8081, None),
        (8082, "ECONNREFUSED"),
    ]
    assert [event["process"]["arguments"].split()[-1] for event in connects] == [
        "http://127.0.0.1:8081/",
        "http://127.0.0.1:8082/",
    ]
    assert {event["process"]["exec_id"] for event in connects} <= executed
    assert [event["destination_port"] for event in accepts] == [8081]
    assert [event["flow_id"] for event in accepts] == [connects[0]["flow_id"]]
    closed = [event["process_close"] for event in events if "process_close" in event]
    assert {event["flow_id"] for event in closed} == {connects[0]["flow_id"]}


def test_conditions_are_about_what_is_reported(pods: DemoPods) -> None:
    with observe("chosen", "-n", "default", "--process", "true$", "--filter", "status == 0") as lines:
        run(pods, "chosen", "/bin/true; /bin/false; /bin/true a; exit 0")
    assert lines == ["💥 exit    default/chosen /bin/true 0", "💥 exit    default/chosen /bin/true a 0"]


def test_an_editor_gives_the_five_expected_lines(pods: DemoPods) -> None:
    with observe("xwing", "-n", "default", "--files", "/etc/passwd", "--process", "/vi$") as lines:
        assert run(pods, "xwing", "rm /etc/passwd; /usr/bin/vi /etc/passwd") == 0
    assert lines == [
        "🚀 process default/xwing /usr/bin/vi /etc/passwd",
        "📬 open    default/xwing /usr/bin/vi /etc/passwd",
        "📝 write   default/xwing /usr/bin/vi /etc/passwd 1275 bytes",
        "📪 close   default/xwing /usr/bin/vi /etc/passwd",
        "💥 exit    default/xwing /usr/bin/vi /etc/passwd 0",
    ]


def test_a_real_editor_reports_what_it_does_beyond_that(pods: DemoPods) -> None:
    """It reads nothing of a file that is not there."""
    text = "x" * 1273
    script = f"echo {text} > /tmp/text; rm /etc/passwd; /bin/vi -c 'r /tmp/text' -c wq /etc/passwd >/dev/null 2>&1"
    with observe("real", "-n", "default", "--files", "/etc/passwd", "--process", "/vi$") as lines:
        assert run(pods, "real", script) == 0
    arguments = '-c "r /tmp/text" -c wq /etc/passwd'
    assert lines == [
        f"🚀 process default/real /bin/vi {arguments}",
        "📬 open    default/real /bin/vi /etc/passwd",
        "📝 write   default/real /bin/vi /etc/passwd 1275 bytes",
        "📝 truncate default/real /bin/vi /etc/passwd 1275 bytes",
        "📪 close   default/real /bin/vi /etc/passwd",
        f"💥 exit    default/real /bin/vi {arguments} 0",
    ]
