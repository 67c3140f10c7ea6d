"""Proxies and TLS."""

import asyncio
import os
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NoReturn

import pytest
import trustme
import yaml

from kubectl_gadget.errors import ClusterError
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.connection import Connection, ResumingContext
from kubectl_gadget.kube.exec import open_exec
from kubectl_gadget.kube.kubeconfig import Cluster, load
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import NODES
from tests.fake_cluster import FakeCluster
from tests.gadget_run import GADGET
from tests.waiting import until


@pytest.fixture(autouse=True)
def _no_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)


@pytest.mark.parametrize(
    ("server", "no_proxy", "proxied"),
    [
        ("https://api.example.com:6443", "", True),
        ("https://api.example.com:6443", "example.com", False),
        ("https://api.example.com:6443", ".example.com:6443", False),
        ("https://api.example.com", "ample.com", True),
        ("https://10.1.2.3:6443", "10.0.0.0/8,other", False),
        ("https://10.1.2.3:6443", "10.1.2.3", False),
        ("https://192.168.1.1", "10.0.0.0/8", True),
        ("https://x.test", "*", False),
        ("https://127.0.0.1:6443", "", False),
        ("https://localhost:6443", "", False),
        ("http://api.example.com", "", False),
    ],
)
def test_the_proxy_of_the_environment_is_used_as_kubectl_does(
    monkeypatch: pytest.MonkeyPatch, server: str, no_proxy: str, proxied: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    for name in ("https_proxy", "no_proxy", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    route = Connection(load(KubeOptions(server=server))).route()
    assert route.proxy == ("http://proxy.test:3128" if proxied else None)
    assert type(route.client.rest_client.pool_manager).__name__ == ("ProxyManager" if proxied else "PoolManager")


@pytest.mark.parametrize("server", ["https://x.test", "https://127.0.0.1:6443"])
def test_the_proxy_of_the_kubeconfig_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HTTPS_PROXY", "http://other:1")
    content = FakeCluster().kubeconfig()
    content["clusters"][0]["cluster"] = {"server": server, "proxy-url": "http://p:1"}
    path = tmp_path / "k"
    path.write_text(yaml.safe_dump(content))
    assert Connection(load(KubeOptions(kubeconfig=str(path)))).route().proxy == "http://p:1"


@pytest.mark.parametrize("proxy", ["ftp://p:1", "http://", "http://p:x", "http://p:0", "file:///etc/passwd"])
def test_a_proxy_that_cannot_be_used_is_refused(tmp_path: Path, proxy: str) -> None:
    content = FakeCluster().kubeconfig()
    content["clusters"][0]["cluster"] = {"server": "https://x.test", "proxy-url": proxy}
    path = tmp_path / "k"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ClusterError, match=r"the proxy .* cannot be used"):
        Connection(load(KubeOptions(kubeconfig=str(path)))).route()


@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.parametrize(
    "words", ["trace open -A", "flows -A", "observe -A", "status", "top pod", "advise seccomp", "deploy", "undeploy"]
)
def test_every_command_ends_with_words_when_the_proxy_cannot_be_used(tmp_path: Path, words: str) -> None:
    content = FakeCluster().kubeconfig()
    content["clusters"][0]["cluster"] = {"server": "https://x.test", "proxy-url": "ftp://p:1"}
    path = tmp_path / "k"
    path.write_text(yaml.safe_dump(content))
    command = [*GADGET, *words.split(), "--kubeconfig", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "error: the proxy 'ftp://p:1' cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_requests_and_exec_work_over_tls_with_the_clusters_own_authority(tmp_path: Path) -> None:
    async with FakeCluster(1, tls=True) as cluster:
        cluster.add_pod("p", "node-1")
        with closing(Api(load(KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "k")))))) as api:
            assert len((await api.find(NODES)).items) == 1
            stream = await open_exec(api, "default", "p", "main", ["echo", "hello"])
            assert await stream.receive() == b"hello\n"
            await stream.close()


async def test_streams_after_the_first_resume_its_tls_session(tmp_path: Path) -> None:
    async with FakeCluster(1, tls=True) as cluster:
        cluster.add_pod("p", "node-1")
        with closing(Api(load(KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "k")))))) as api:
            resumed = []
            for _ in range(4):
                stream = await open_exec(api, "default", "p", "main", ["echo", "hello"])
                assert await stream.receive() == b"hello\n"
                resumed.append(stream.websocket.transport.get_extra_info("ssl_object").session_reused)
                await stream.close()
            assert resumed == [False, True, True, True]


async def test_streams_over_tls_read_into_one_buffer(tmp_path: Path) -> None:
    async with FakeCluster(1, tls=True) as cluster:
        cluster.add_pod("p", "node-1")
        with closing(Api(load(KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "k")))))) as api:
            streams = [await open_exec(api, "default", "p", "main", ["cat"]) for _ in range(3)]

            async def echo(number: int) -> None:
                sent, received = bytes([number]) * 100_003, b""
                await streams[number].send(sent)
                while len(received) < len(sent):
                    received += await streams[number].receive()
                assert received == sent

            await asyncio.gather(*map(echo, range(3)))
            buffers = {id(stream.websocket.transport._ssl_protocol.get_buffer(-1).obj) for stream in streams}  # type: ignore[attr-defined]
            assert len(buffers) == 1
            for stream in streams:
                await stream.close()


async def test_a_stream_after_a_request_resumes_its_tls_session(tmp_path: Path) -> None:
    async with FakeCluster(1, tls=True) as cluster:
        cluster.add_pod("p", "node-1")
        with closing(Api(load(KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "k")))))) as api:
            await api.find(NODES)
            stream = await open_exec(api, "default", "p", "main", ["echo", "hello"])
            assert stream.websocket.transport.get_extra_info("ssl_object").session_reused
            await stream.close()


def test_the_session_of_a_later_whole_handshake_replaces_one_that_the_server_has_forgotten() -> None:
    certificate = trustme.CA().issue_cert("kubernetes.test")

    def server() -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(made)
        return made

    client = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    first, second = server(), server()  # each has keys of its own for its tickets
    assert [resumed(client, each) for each in (first, first, second, second, second)] == [
        False,
        True,
        False,
        True,
        True,
    ]


def test_a_session_is_taken_only_where_data_was_read() -> None:
    """Another thread may be reading the server's ticket: a session taken meanwhile may have it with the old secret."""
    certificate = trustme.CA().issue_cert("kubernetes.test")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(server)
    client = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    assert not resumed(client, server, reads=False)
    assert not resumed(client, server)
    assert resumed(client, server, reads=False)


def resumed(client: ssl.SSLContext, server: ssl.SSLContext, reads: bool = True) -> bool:
    """True if a stream resumes a session. `reads`: it then reads data, and the server's tickets before it."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname="kubernetes.test")
    theirs = server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    if reads:
        theirs.write(b"x")
        assert ours.read(1) == b"x"
    return bool(ours.session_reused)


async def test_a_certificate_for_another_name_is_trusted_with_tls_server_name_alone(tmp_path: Path) -> None:
    async with FakeCluster(1, tls=True) as cluster:
        cluster.add_pod("p", "node-1")
        cluster.url = cluster.url.replace("127.0.0.1", "localhost")
        path = str(cluster.write_kubeconfig(tmp_path / "k"))
        with pytest.raises(ClusterError, match=r"certificate of https://localhost.* is not trusted"):
            await Api(load(KubeOptions(kubeconfig=path))).find(NODES)
        with closing(Api(load(KubeOptions(kubeconfig=path, tls_server_name="kubernetes.test")))) as api:
            assert len((await api.find(NODES)).items) == 1
            await (await open_exec(api, "default", "p", "main", ["true"])).close()


async def test_an_unknown_authority_is_refused_unless_checks_are_off(tmp_path: Path) -> None:
    async with FakeCluster(1, tls=True) as cluster:
        cluster.certificate_authority = None
        path = str(cluster.write_kubeconfig(tmp_path / "k"))
        with pytest.raises(ClusterError, match="is not trusted"):
            await Api(load(KubeOptions(kubeconfig=path))).find(NODES)
        with closing(Api(load(KubeOptions(kubeconfig=path, insecure_skip_tls_verify=True)))) as api:
            assert len((await api.find(NODES)).items) == 1


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def test_closing_leaves_no_connection_open(tmp_path: Path) -> None:
    async with FakeCluster(1) as cluster:
        api = Api(load(KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "k")))))
        before = descriptors()
        await asyncio.gather(*(api.find(NODES) for _ in range(5)))
        assert descriptors() > before
        api.close()
        await until(lambda: descriptors() == before)


def broken(tmp_path: Path, cluster: dict[str, str]) -> KubeOptions:
    content = FakeCluster().kubeconfig()
    content["clusters"][0]["cluster"] = {"server": "https://x.test", **cluster}
    path = tmp_path / "k"
    path.write_text(yaml.safe_dump(content))
    return KubeOptions(kubeconfig=str(path))


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"certificate-authority-data": "!!garbage!!"}, "certificate-authority-data in the kubeconfig is not base64"),
        ({"certificate-authority-data": "Z2FyYmFnZQ=="}, "the certificate authority in the kubeconfig is not valid"),
        ({"server": "https://x.test:99999"}, "is not an http or https URL"),
        ({"server": "https://x.test:abc"}, "is not an http or https URL"),
    ],
)
def test_a_kubeconfig_with_a_broken_value_is_refused_by_its_name(
    tmp_path: Path, cluster: dict[str, str], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        Connection(load(broken(tmp_path, cluster))).route()


class CountedLock:
    """A lock that says how many have asked for it."""

    def __init__(self) -> None:
        self.asked = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.asked += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_credentials_that_fail_are_asked_for_once_for_requests_at_the_same_time() -> None:
    lock, attempts = CountedLock(), list[int]()

    def fails() -> NoReturn:
        attempts.append(lock.asked)
        while lock.asked < 3:
            pass
        raise ClusterError("the credential plugin failed")

    connection = Connection(Cluster("https://x.test", fails))
    connection._lock = lock  # type: ignore[assignment]
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(connection.route) for _ in range(3)]
    assert [str(each.exception()) for each in found] == ["the credential plugin failed"] * 3
    assert len(attempts) == 1
    with pytest.raises(ClusterError):
        connection.route()
    assert len(attempts) == 2


async def test_a_server_without_the_api_is_named_with_its_path(tmp_path: Path) -> None:
    async with FakeCluster(1) as cluster:
        options = broken(tmp_path, {"server": f"{cluster.url}/k8s/clusters/x"})
        with (
            closing(Api(load(options))) as api,
            pytest.raises(ClusterError, match="/k8s/clusters/x does not serve nodes"),
        ):
            await api.find(NODES)
