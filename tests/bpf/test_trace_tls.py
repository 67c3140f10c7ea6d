"""trace tls: real handshakes of Python's ssl over loopback, those that are established and those that fail."""

import datetime
import ipaddress
import socket
import ssl
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bpf import network
from tests.bpf.network import in_namespace
from tests.bpf.viewed import Viewed

pytestmark = pytest.mark.bpf
NAME = "ship.rebels.example"
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
Rows = list[dict[str, Any]]


def certificate(folder: Path, days: int = 30, name: str = NAME) -> Path:
    """A file with a key and a certificate that it signs itself, which expires after so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Rebels")])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) if days < 0 else datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("10.0.0.7"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}{days}.pem"
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(*formats) + made.public_bytes(serialization.Encoding.PEM))
    return file


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = NAME) -> str:
    """Shakes hands over loopback, and exchanges a byte each way. Returns the client's error."""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as accepted, server.wrap_socket(accepted, server_side=True) as one:
            one.sendall(one.recv(1))
            one.recv(1)

    with network.listener(network.V4) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        error = ""
        try:
            with (
                socket.create_connection(listener.getsockname()) as plain,
                client.wrap_socket(plain, server_hostname=name) as one,
            ):
                one.sendall(b"x")
                one.recv(1)
        except OSError as failed:
            error = str(failed)
        thread.join(20)
        return error


def contexts(file: Path, version: ssl.TLSVersion = TLS_1_2) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's with this certificate, and a client's that trusts it. Both have this version only."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(file)
    client.load_verify_locations(file)
    for one in (server, client):
        one.minimum_version = one.maximum_version = version
    return server, client


def traced(server: ssl.SSLContext, client: ssl.SSLContext, name: str = NAME, **parameters: Any) -> tuple[str, Rows]:
    """The client's error, and the rows of the client and of the server."""
    with Viewed("trace_tls", wait=10, **parameters) as tracer:
        pid, error = in_namespace(lambda: handshake(server, client, name))
        rows = [row for row in tracer.rows() if row["pid"] == pid]
        assert tracer.lost == 0
    return error, sorted(rows, key=lambda row: str(row["role"]))


@pytest.fixture
def folder() -> Any:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_an_established_handshake_is_a_row_at_both_ends(folder: Path, version: ssl.TLSVersion) -> None:
    error, rows = traced(*contexts(certificate(folder), version))
    assert error == ""
    assert [(row["role"], row["result"], row["name"]) for row in rows] == [
        ("client", "established", NAME),
        ("server", "established", NAME),
    ]
    assert rows[0]["local_port"] == rows[1]["remote_port"]
    for row in rows:
        assert row["version"] == ("TLS1.2" if version == TLS_1_2 else "TLS1.3")
        assert (row["alert"], row["ended_by"]) == (None, "")
        assert row["cipher"].endswith("AES_256_GCM_SHA384")
        assert row["cipher"] in row["ciphers"]
        assert 0 < row["duration"] < 10**10


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_established_handshakes_can_be_left_out(folder: Path, version: ssl.TLSVersion) -> None:
    assert traced(*contexts(certificate(folder), version), failed=True) == ("", [])


@pytest.mark.parametrize(
    ("days", "name", "trusts", "alert"),
    [
        (-30, NAME, True, "certificate_expired (45)"),
        (30, NAME, False, "unknown_ca (48)"),
        (30, "deathstar.example", True, "bad_certificate (42)"),
    ],
)
def test_a_certificate_that_the_client_rejects_is_shown_with_the_alert(
    folder: Path, days: int, name: str, trusts: bool, alert: str
) -> None:
    server, client = contexts(certificate(folder, days))
    if not trusts:
        client = ssl.create_default_context()
        client.maximum_version = TLS_1_2
    error, rows = traced(server, client, name, failed=True)
    assert "CERTIFICATE_VERIFY_FAILED" in error
    assert [row["role"] for row in rows] == ["client", "server"]
    for row in rows:
        assert (row["result"], row["alert"], row["ended_by"], row["name"]) == ("alert", alert, "client", name)
        assert row["certificate"] == [NAME, "10.0.0.7"]
        assert (row["subject"], row["issuer"]) == ("CN=Rebels", "CN=Rebels")
        assert row["not_after"].startswith("2025-12-02") == (days < 0)
        assert row["not_before"] < row["not_after"]


def test_in_tls_1_3_a_client_of_openssl_rejects_by_an_alert_in_clear(folder: Path) -> None:
    server, client = contexts(certificate(folder, -30), TLS_1_3)
    error, rows = traced(server, client)
    assert "expired" in error
    for row in rows:
        assert (row["result"], row["ended_by"], row["version"]) == ("alert", "client", "TLS1.3")
        assert (row["alert"], row["certificate"]) == ("certificate_expired (45)", [])
    assert len(rows) == 2


def test_no_version_in_common_is_an_alert_of_the_server(folder: Path) -> None:
    server, client = contexts(certificate(folder), TLS_1_3)
    client.minimum_version = client.maximum_version = TLS_1_2
    _, rows = traced(server, client)
    found = {(row["result"], row["alert"], row["ended_by"], row["version"]) for row in rows}
    assert found == {("alert", "protocol_version (70)", "server", "TLS1.2")}
    assert len(rows) == 2


def test_no_cipher_in_common_is_an_alert_of_the_server(folder: Path) -> None:
    server, client = contexts(certificate(folder))
    server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    _, rows = traced(server, client)
    found = {(row["result"], row["alert"], row["ended_by"], row["cipher"]) for row in rows}
    assert found == {("alert", "handshake_failure (40)", "server", None)}
    assert "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" in rows[0]["ciphers"]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_missing_client_certificate_is_an_alert_of_the_server(folder: Path, version: ssl.TLSVersion) -> None:
    server, client = contexts(certificate(folder), version)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificate(folder))
    _, rows = traced(server, client)
    result, alert = ("alert", "handshake_failure (40)") if version == TLS_1_2 else ("encrypted alert", None)
    assert {(row["result"], row["alert"], row["ended_by"]) for row in rows} == {(result, alert, "server")}


def test_a_server_that_closes_or_says_nothing_is_told_apart(folder: Path) -> None:
    _, client = contexts(certificate(folder))

    def deed() -> None:
        for reset in (True, False):
            with network.listener(network.V4) as listener, socket.create_connection(listener.getsockname()) as plain:
                accepted, _ = listener.accept()
                outgoing = ssl.MemoryBIO()
                with suppress(ssl.SSLWantReadError):
                    client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME).do_handshake()
                plain.sendall(outgoing.read())
                if not reset:
                    accepted.recv(1 << 16)
                # With unread data, the kernel sends a reset.
                accepted.close()
                with suppress(OSError):
                    plain.recv(1)

    with Viewed("trace_tls", wait=10) as tracer:
        pid, _ = in_namespace(deed)
        rows = [row for row in tracer.rows() if row["pid"] == pid and row["role"] == "client"]
    assert [(row["result"], row["ended_by"]) for row in rows] == [("reset", "server"), ("closed", "server")]
