"""OTLP log records as a collector decodes them, and what a collector's answers do."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.export import delivery
from kubectl_gadget.export.conventions import SCHEMA_URL
from kubectl_gadget.export.http import HttpTransport, endpoint
from kubectl_gadget.export.otlp import LogRecords
from kubectl_gadget.export.run import Export
from kubectl_gadget.export.targets import ExportOptions, Tls, headers, target
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.rows.rows import Rows
from tests.export.collector import Answer, collector, value
from tests.export.receivers import Certificates, unused_port
from tests.export.test_run import run
from tests.page.made import HOSTILE, batch, opened, process
from tests.waiting import wait_until

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(HttpTransport, "linger", 0.0)


def opens(number: int = 3, errno: int = 0, path: str = "/data/file") -> Rows:
    """Rows of two pods in turn."""
    rows = [opened(10, 1 + each, f"{path}{each}", errno) for each in range(number)]
    return Rows([batch("trace_open", rows, ("cart-0", "cart-1"))])


def begun(port: int, said: list[str] | None = None, **more: Any) -> Export:
    options = ExportOptions((target(f"otlp=http://127.0.0.1:{port}"),), **more)
    made = Export(options, [load_gadget("trace_open")])
    made.begin((said if said is not None else []).append)
    return made


def test_rows_are_log_records_in_the_names_of_the_conventions() -> None:
    with collector() as server:
        made = begun(server.port)
        made.write(opens(2, errno=13))
        made.write(opens(1))
        made.gap("node-1", 2.5, 4_000_000_000)
        made.close()
    found = server.logs()
    resource, record, attributes = found[0]
    assert resource == {
        "host.name": "node-1",
        "k8s.node.name": "node-1",
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "cart-0",
        "k8s.container.name": "app",
        "service.name": "app",
        "service.namespace": "shop",
        "service.instance.id": "shop.cart-0.app",
    }
    assert record.time_unix_nano == 1_000_000_000
    assert (record.severity_text, record.severity_number) == ("WARN", 13)
    assert (record.event_name, value(record.body)) == ("gadget.open", "open /data/file0")
    wanted = {"process.pid": 10, "thread.name": "cart", "file.path": "/data/file0", "error.type": "EACCES"}
    assert wanted.items() <= attributes.items()
    assert not {name for name in attributes if name.endswith("_raw")}
    assert [one["k8s.pod.name"] for one, *_ in found if "k8s.pod.name" in one] == ["cart-0", "cart-1", "cart-0"]
    assert [record.severity_text for _, record, _ in found] == ["WARN", "WARN", "INFO", "WARN"]
    assert found[3][2] == {"gadget.gap_seconds": 2.5}
    scopes = {
        (group.schema_url, scope.schema_url, scope.scope.name)
        for request in server.requests
        for group in request.resource_logs
        for scope in group.scope_logs
    }
    assert scopes == {(SCHEMA_URL, SCHEMA_URL, "kubectl-gadget")}
    assert made.lost == 0


def test_values_of_all_kinds_survive_and_hostile_ones_stay_values() -> None:
    exec_row = process("exec", 10, 1, 2, "/bin/cart", HOSTILE, "ü")
    with collector() as server:
        made = Export(ExportOptions((target(f"otlp=http://127.0.0.1:{server.port}"),)), [load_gadget("trace_process")])
        made.begin(print)
        made.write(Rows([batch("trace_process", [exec_row, process("exit", 10, 1, 3, code=3)])]))
        made.write(opens(1, path=f"{HOSTILE}\n"))
        made.close()
    first, second, third = (attributes for _, _, attributes in server.logs())
    assert first["process.command_args"] == ["/bin/cart", HOSTILE, "ü"]
    assert second["process.exit.code"] == 3
    assert third["file.path"] == f"{HOSTILE}\n0"


def test_texts_that_were_encoded_hold_no_memory() -> None:
    encoder = LogRecords([load_gadget("trace_open")], {})

    def encode(begin: int, end: int) -> int:
        """Encode 100 new paths of 2 kB with each number, and return the process's memory in MiB."""
        for number in range(begin, end):
            rows = [opened(10, 1, f"/{number}-{each}/{'x' * 2000}") for each in range(100)]
            assert len(encoder.encode(Rows([batch("trace_open", rows)]))) == 1
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20

    before = encode(0, 50)
    assert encode(50, 350) - before < 40, "of texts of 60 MB, which are in a record's body and in an attribute"


def test_a_replay_has_a_record_for_each_row_and_the_columns_of_flows(
    recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows"
    for command in ("trace open", "flows", "observe"):
        path.unlink(missing_ok=True)
        with collector() as server:
            place = f"otlp=http://127.0.0.1:{server.port}"
            words = ("replay", recorded, *command.split(), "--export", f"jsonl={path}", "--export", place)
            assert run(capsys, *words)[0] == 0
        rows = sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: row["timestamp"])
        found = sorted(server.logs(), key=lambda one: one[1].time_unix_nano)
        assert len(found) == len(rows) >= 3
        assert all(record.time_unix_nano > 1_700_000_000_000_000_000 for _, record, _ in found)
        if command == "flows":
            assert {"source.address", "gadget.source.pod", "destination.port"} <= found[0][2].keys()
            assert not {"gadget.source", "gadget.destination"} & found[0][2].keys()


@pytest.fixture(scope="module", name="recorded")
def a_recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.page.made import recording

    return str(recording(tmp_path_factory.mktemp("recording") / "shop.kgr"))


# Answers.


def test_what_a_collector_takes_later_waits_for_the_time_that_it_says() -> None:
    said: list[str] = []
    with collector(Answer(429, "slow down", Retry_After="1"), Answer(503), Answer(502), Answer(504)) as server:
        made = begun(server.port, said)
        began = time.monotonic()
        made.write(opens())
        wait_until(server.logs)
        assert time.monotonic() - began >= 1
        made.close()
    assert made.lost == 0
    assert len(server.asked) == 5
    assert said[0].endswith("HTTP 429 Too Many Requests: slow down; rows wait, and it is tried again")


def test_what_a_collector_refuses_is_counted_with_its_words() -> None:
    with collector(Answer(400, "bad \x1b[31m"), 2) as server:
        made = begun(server.port)
        made.write(opens(5))
        wait_until(lambda: made.lost == 5)
        made.write(opens(4))
        made.close()
    (line,) = made.losses()
    assert "5: HTTP 400 Bad Request: bad" in line
    assert "2: no room" in line
    assert made.lost == 7
    assert len(server.asked) == 2


def status(text: str) -> Answer:
    """A failure as the OTLP specification has it: a google.rpc.Status."""
    return Answer(400, "\x08\x03\x12" + chr(len(text)) + text, Content_Type="application/x-protobuf")


@pytest.mark.parametrize("large", [Answer(413), status("http: request body too large")])
def test_a_request_that_is_too_large_is_divided(large: Answer) -> None:
    with collector() as server:
        server.go.clear()
        made = begun(server.port)
        made.write(opens(1))
        wait_until(lambda: server.asked)
        for _ in range(4):
            made.write(opens(1))
        server.answers += [0, large, large]
        server.go.set()
        made.close()
    assert made.lost == 0
    assert len(server.logs()) == 5
    assert len(server.asked) == 1 + 2 + 4


def test_the_words_of_a_failure_are_those_of_its_message() -> None:
    with collector(status("no tenant"), Answer(400, "\x12\xff", Content_Type="application/x-protobuf")) as server:
        made = begun(server.port)
        for lost in (1, 2):
            made.write(opens(1))
            wait_until(lambda lost=lost: made.lost == lost)
        made.close()
    (line,) = made.losses()
    assert "1: HTTP 400 Bad Request: no tenant" in line
    assert line.count("1: HTTP 400 Bad Request") == 2


def test_a_redirect_is_not_followed_and_an_answer_of_something_else_is_no_success() -> None:
    with collector(Answer(302, Location="http://127.0.0.1:1/")) as server:
        made = begun(server.port)
        made.write(opens(1))
        made.close()
    assert (made.lost, len(server.asked)) == (1, 1)


def test_a_collector_that_never_answers_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(delivery, "MOST_BYTES", 1 << 16)
    with collector() as server:
        server.go.clear()
        made = begun(server.port)
        rows = opens(100)
        for _ in range(50):
            made.write(rows)
        made.close()
        assert made.lost == 5000
        assert any("the queue was full" in line for line in made.losses())


def test_headers_compression_and_time_come_from_flags_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "headers").write_text("# mine\nAuthorization: Bearer a=b:c\n\n")
    with collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.port}/")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b, authorization2=no")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,k8s.cluster.name=c1")
        given = headers(f"@{tmp_path}/headers")
        made = Export(ExportOptions((target("otlp"),), headers=given), [load_gadget("trace_open")])
        made.begin(print)
        made.write(opens(1))
        made.close()
    ((path, asked),) = server.asked
    assert path == "/v1/logs"
    wanted = {"Authorization": "Bearer a=b:c", "x-tenant": "a b", "Content-Encoding": "gzip"}
    assert wanted.items() <= asked.items()
    assert asked["Content-Type"] == "application/x-protobuf"
    resource, *_ = server.logs()[0]
    assert (resource["k8s.cluster.name"], resource["k8s.pod.name"]) == ("c1", "cart-0")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("PROTOCOL", "grpc", "only http/protobuf"),
        ("COMPRESSION", "zstd", "must be none or gzip"),
        ("ENDPOINT", "localhost:4317", "must begin with http:// or https://"),
        ("HEADERS", "secret", "a header must be"),
        ("TIMEOUT", "soon", "soon"),
        ("CERTIFICATE", "/no/such/file", ""),
    ],
)
def test_an_environment_that_cannot_be_used_is_an_error(
    name: str, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", text)
    if words:
        with pytest.raises(UsageError, match=words):
            endpoint("", {}, Tls())
        return
    with pytest.raises(UsageError, match="certificates"):
        HttpTransport(endpoint("https://127.0.0.1:1", {}, Tls()), "v1/logs", lambda answer: (0, ""))


def test_errors_do_not_show_the_values_of_headers() -> None:
    for text in ("Authorization", "Bad Name=secret", "X=sec\nret", "@/no/such/secretfile"):
        with pytest.raises(ValueError, match=r".") as error:
            headers(text)
        assert text.startswith("@") or "sec" not in str(error.value)
    with pytest.raises(ValueError, match="4318"):
        target("otlp=grpc://x:4317")


def test_tls_checks_the_server_and_shows_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = Certificates(tmp_path)
    rows, gadgets = opens(), [load_gadget("trace_open")]
    with collector(context=certificates.context(asks=True)) as server:
        place = target(f"otlp=https://127.0.0.1:{server.port}")
        files = Tls(certificates.ca, certificates.cert, certificates.key)
        made = Export(ExportOptions((place,), files), gadgets)
        made.begin(print)
        made.write(rows)
        made.close()
        assert (made.lost, len(server.logs())) == (0, 3)
        monkeypatch.setattr(delivery, "CLOSE_SECONDS", 0.2)
        for wrong in (Tls(), Tls(certificates.ca)):
            made = Export(ExportOptions((place,), wrong), gadgets)
            made.begin(print)
            made.write(rows)
            made.close()
            assert made.lost == 3
            assert len(server.logs()) == 3


def test_a_collector_that_is_killed_and_started_again_gets_what_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    port, said = unused_port(), list[str]()
    made = begun(port, said)
    made.write(opens(2))
    wait_until(lambda: said)
    assert "Connection refused" in said[0]
    with collector(port=port) as server:
        wait_until(server.logs)
        made.close()
    assert made.lost == 0
    assert said[1].endswith("it takes rows again")
