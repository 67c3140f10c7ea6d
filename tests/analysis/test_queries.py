"""SQL over real recordings: views, the questions of docs/queries.md, formats, bounded memory, and no way out."""

import io
import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.analysis.conversion import to_parquet
from kubectl_gadget.analysis.queries import Queries, opened, print_answer
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.registry import QUERIES
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.coverage import Coverage, NodeCoverage
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.frames import FrameType
from tests.analysis.recordings import BOOT_NS, WALL_NS, opens, recorded
from tests.gadget_run import GADGET

pytestmark = pytest.mark.usefixtures("catalogue_built")
PAGE = Path(__file__).parents[2] / "docs" / "queries.md"
QUESTIONS = re.findall(r"^(\S[^\n]*\?) \([^)\n]+\)\n```sql\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
NAME = b"\x05names\x04test\x00\x00\x01\x00\x01"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, catalogue_built: None) -> Path:
    """A recording of processes, files, connections and names of this machine."""
    path = tmp_path_factory.mktemp("run") / "run.kgr"
    ended = threading.Event()
    thread = threading.Thread(target=_act, args=(ended,))
    thread.start()
    try:
        rows = recorded(path, "trace", "process+open+tcp+dns")
    finally:
        ended.set()
        thread.join()
    assert {row["event"] for row in rows} == {"process", "open", "tcp", "dns"}
    return path


def _act(ended: threading.Event) -> None:
    """Asks for names, and runs programs that fail."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.9.9.53", 53))
        server.settimeout(60)
        client.settimeout(60)
        number = 0
        while not ended.wait(0.05):
            number += 1
            client.sendto(number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + NAME, server.getsockname())
            question, asker = server.recvfrom(512)
            server.sendto(question[:2] + b"\x81\x80" + question[4:], asker)
            client.recv(512)
            subprocess.run(["cat", "/etc/passwd", "/nowhere"], check=False, capture_output=True)


@pytest.fixture
def queries(run: Path) -> Iterator[Queries]:
    with opened([run], io.StringIO()) as found:
        yield found


def rows(queries: Queries, sql: str) -> list[dict[str, Any]]:
    (answer,) = queries.ask(sql)
    return [dict(zip(answer.names, row, strict=True)) for piece in answer.rows() for row in piece]


def read_all(queries: Queries, sql: str) -> None:
    for answer in queries.ask(sql):
        list(answer.rows())


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == 10


@pytest.mark.bpf
@pytest.mark.parametrize(("question", "sql"), QUESTIONS)
def test_each_question_of_the_page_has_an_answer(queries: Queries, question: str, sql: str) -> None:
    assert rows(queries, sql), question


@pytest.mark.bpf
def test_processes_have_parents_and_trees(queries: Queries) -> None:
    cat = rows(queries, "select * from process where args = ['cat', '/etc/passwd', '/nowhere'] and ended is not null")[
        0
    ]
    assert (cat["comm"], cat["code"]) == ("cat", 1)
    tree = rows(queries, f"select depth, exec_id, comm from tree('{cat['exec_id']}') order by depth")
    assert tree[0]["comm"] == "cat"
    assert tree[1]["exec_id"] == cat["parent_exec_id"]
    assert "pytest" in tree[1]["comm"] or "python" in tree[1]["comm"]


@pytest.mark.bpf
def test_processes_are_also_known_from_execs_and_exits(tmp_path: Path) -> None:
    recorded(tmp_path / "run.kgr", "trace", "exec+exit")
    with opened([tmp_path / "run.kgr"], io.StringIO()) as queries:
        found = rows(queries, "select * from process where comm = 'true' and ended is not null limit 1")
        assert found[0]["code"] == 0
        assert found[0]["ended"] > found[0]["started"]
        assert len(rows(queries, f"from tree('{found[0]['exec_id']}')")) >= 1


@pytest.mark.bpf
def test_flows_have_the_bytes_of_connections(queries: Queries) -> None:
    found = rows(queries, "select sum(sent) as sent, sum(received) as received from flows where initiator = 'this end'")
    assert found[0]["sent"] > 0


def test_times_have_nanoseconds_and_values_are_those_of_json(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    with opened([tmp_path / "a.kgr"], io.StringIO()) as queries:
        found = rows(
            queries,
            "select timestamp, 170141183460469231731687303715884105727::hugeint as huge, [1] as list, "
            "null as nothing, 1.5::decimal(4,2) as number from open order by timestamp limit 1",
        )
        assert found[0] == {
            "timestamp": "2026-09-21T14:13:20.000000000Z",
            "huge": 170141183460469231731687303715884105727,
            "list": [1],
            "nothing": None,
            "number": 1.5,
        }
        for format in QUERIES.names:
            stream = io.StringIO()
            (answer,) = queries.ask("select 'a\x1bb' as text, 1 as number")
            print_answer(answer, format, stream)
            assert "\x1b" not in stream.getvalue() or format == "csv"


def test_numbers_times_and_names_that_json_does_not_have(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    with opened([tmp_path / "a.kgr"], io.StringIO()) as queries:
        sql = (
            "select 'nan'::double as a, ['-inf'::float] as a, 1 as a_1, 'infinity'::timestamp as t, "
            "'3000-01-02 03:04:05'::timestamp as far, null::timestamp as no, '2026-01-01'::timestamp_s as s"
        )
        stream = io.StringIO()
        (answer,) = queries.ask(sql)
        print_answer(answer, "json", stream)
        assert json.loads(stream.getvalue(), parse_constant=pytest.fail) == {
            "a": "NaN",
            "a_2": ["-Infinity"],
            "a_1": 1,
            "t": "infinity",
            "far": "3000-01-02T03:04:05.000000000Z",
            "no": None,
            "s": "2026-01-01T00:00:00.000000000Z",
        }


def test_what_the_run_lost_is_reported_with_answers(tmp_path: Path) -> None:
    gadget, clocks = load_gadget("trace_open"), {"boot_ns": BOOT_NS, "realtime_ns": WALL_NS}
    writer = RecordingWriter(tmp_path / "a.kgr", meta_of(RunOptions((GadgetRun(gadget),))), print)
    contents = (
        (FrameType.HELLO, {"protocol": 1, "agent": "1", "node": "n1", **clocks}),
        (FrameType.STARTED, {"gadgets": [{"name": "trace_open", "programs": []}], **clocks}),
        (FrameType.STATS, {"gadgets": [{"events": 1, "lost": {"ring_full": {"all": 7}}}], **clocks}),
    )
    frames = [RecordedFrame("n1", kind, json.dumps(content).encode()) for kind, content in contents]
    writer.step(BOOT_NS, WALL_NS, frames)
    times = {"attached_ns": WALL_NS, "until_ns": WALL_NS + 1_000_000_000}
    node = NodeCoverage(name="n1", lost={"ring_full": 7}, **times)
    covered = Coverage(began_ns=WALL_NS, complete_ns=WALL_NS, ended_ns=times["until_ns"], nodes=(node,))
    writer.close({"seconds": 1}, covered.to_json())
    errors = io.StringIO()
    with opened([tmp_path / "a.kgr"], errors):
        assert "7 events were lost" in errors.getvalue()
    to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", errors)
    errors = io.StringIO()
    with opened([tmp_path / "lake"], errors):
        assert errors.getvalue().count("rows are missing: 7 events were lost") == 1


OUT = (
    "select * from read_text('/etc/passwd')",
    "select * from '/etc/passwd'",
    "select * from glob('/etc/*')",
    "copy (select 1) to '{0}/out.csv'",
    "explain analyze copy (select 1) to '{0}/out.csv'",
    "explain ( /* ) select 1 -- */ analyze) copy (select 1) to '{0}/out.csv'",
    "/* x */ explain analyze copy (select 1) to '{0}/out.csv'",
    "prepare x as copy (select 1) to '{0}/out.csv'",
    "export database '{0}/out'",
    "attach '{0}/out.db'",
    "install httpfs",
    "load httpfs",
    "select * from 'https://example.com/x.parquet'",
    "set enable_external_access = true",
    "set memory_limit = '100GB'",
    "reset enable_external_access",
    "pragma enable_profiling",
    "call force_checkpoint()",
    "select 1; copy (select 1) to '{0}/out.csv'",
)


@pytest.mark.parametrize("sql", OUT)
def test_sql_reaches_nothing_else(tmp_path: Path, sql: str) -> None:
    opens(tmp_path / "a.kgr", 2000)
    to_parquet([tmp_path / "a.kgr"], tmp_path / "lake", io.StringIO())
    before = sorted(tmp_path.rglob("*"))
    with opened([tmp_path / "lake"], io.StringIO()) as queries, pytest.raises(UsageError, match="SQL: "):
        read_all(queries, sql.format(tmp_path / "lake"))
    assert sorted(tmp_path.rglob("*")) == before


def test_files_are_reached_when_that_is_asked_for(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    with opened([tmp_path / "a.kgr"], io.StringIO(), outside=True) as queries:
        list(queries.ask(f"copy (select count(*) as n from open) to '{tmp_path}/n.csv'"))
    assert (tmp_path / "n.csv").read_text() == "n\n2000\n"


def test_a_query_that_needs_more_memory_uses_the_disk(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    with opened([tmp_path / "a.kgr"], io.StringIO(), memory=64 << 20) as queries:
        sql = "select count(*) as n from (select distinct i, repeat('x', 60) || i from range(600000) t(i))"
        assert rows(queries, sql) == [{"n": 600_000}]


def test_a_dataset_may_have_any_name(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    lake = tmp_path / "it's [1] * lake?"
    to_parquet([tmp_path / "a.kgr"], lake, io.StringIO())
    with opened([lake], io.StringIO()) as queries:
        assert rows(queries, "select count(*) as n from open") == [{"n": 2000}]


def test_mistakes_are_named(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)
    with opened([tmp_path / "a.kgr"], io.StringIO()) as queries:
        with pytest.raises(UsageError, match="foo"):
            list(queries.ask("select foo from open"))
        with pytest.raises(UsageError, match="Conversion"):
            rows(queries, "select comm::int as n from open")
    with pytest.raises(UsageError, match="no Parquet tables"), opened([tmp_path], io.StringIO()):
        pass
    (tmp_path / "bad").write_bytes(b"x")
    with pytest.raises(UsageError, match="not a recording"), opened([tmp_path / "bad"], io.StringIO()):
        pass


def test_the_command_takes_sql_as_its_last_word(tmp_path: Path) -> None:
    opens(tmp_path / "a.kgr", 2000)

    def query(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*GADGET, "recording", "query", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    file = str(tmp_path / "a.kgr")
    assert query(file, "select count(*) as n from open", "-o", "csv").stdout == "n\n2000\n"
    assert query(file, "select 1 as one; select 2 as two", "-o", "json").stdout == '{"one": 1}\n{"two": 2}\n'
    assert query(file, "show tables", "-o", "csv").stdout == "name\ncontainers\ncoverage\nopen\n"
    wrong = query(file, "select foo")
    assert (wrong.returncode, "foo" in wrong.stderr) == (2, True)
    without = query(file)
    assert (without.returncode, "no SQL was given" in without.stderr) == (2, True)
    missing = query(str(tmp_path / "b.kgr"))
    assert (missing.returncode, "No such file" in missing.stderr) == (2, True)
