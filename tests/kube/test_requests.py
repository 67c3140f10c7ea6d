"""Requests and what becomes of refusals."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from kubectl_gadget.errors import ForbiddenError
from kubectl_gadget.kube import requests
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.failure import Access, StatusError, UnreachableError
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.requests import Api, warning_text
from kubectl_gadget.kube.resources import NAMESPACES, NODES, PODS
from tests.fake_cluster import FakeCluster


@pytest.fixture(autouse=True)
def _no_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)


async def test_all_pages_of_a_list_are_read(cluster: FakeCluster, api: Api) -> None:
    for number in range(1009):
        cluster.add_pod(f"p{number}", "node-1")
    listing = await api.find(PODS, "default")
    assert len({pod["metadata"]["name"] for pod in listing.items}) == 1009


async def test_a_list_has_what_is_kept_of_each_object(cluster: FakeCluster, api: Api) -> None:
    listing = await api.find(NODES, keep=lambda node: {"name": node["metadata"]["name"]})
    assert listing.items == [{"name": "node-1"}, {"name": "node-2"}]


async def test_what_does_not_exist_is_null(api: Api) -> None:
    assert await api.get(NAMESPACES, "nothing") is None
    assert await api.delete(NAMESPACES, "nothing") is False


async def test_the_double_refuses_an_owner_without_a_uid_as_the_server_does(cluster: FakeCluster, api: Api) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"}
    pod = {"metadata": {"name": "p", "ownerReferences": [owner]}, "spec": {"containers": []}}
    with pytest.raises(StatusError, match=r"ownerReferences\[0\].uid: Required value") as error:
        await api.create(PODS, pod, "default")
    assert error.value.code == 422
    cluster.add_pod("p", "node-1")
    with pytest.raises(StatusError, match="Required value"):
        await api.patch(PODS, "p", {"metadata": {"ownerReferences": [owner]}}, "default")
    assert "ownerReferences" not in cluster.pods("default")[0]["metadata"]


async def test_in_the_double_an_object_goes_with_the_last_of_its_owners(cluster: FakeCluster, api: Api) -> None:
    owners = [cluster.add_pod(name, "node-1")["metadata"] for name in ("first", "second")]
    references = [{"apiVersion": "v1", "kind": "Pod", "name": one["name"], "uid": one["uid"]} for one in owners]
    cluster.store.add("pods", "default", {"metadata": {"name": "owned", "ownerReferences": references}})
    cluster.delete_pod("first")
    assert await api.get(PODS, "owned", "default") is not None
    cluster.delete_pod("second")
    assert await api.get(PODS, "owned", "default") is None


async def test_forbidden_says_verb_resource_namespace_and_the_command_to_check(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.forbidden.add(("list", "pods"))
    with pytest.raises(
        ForbiddenError, match=r'User "tester" cannot list resource "pods".*namespace "default"'
    ) as error:
        await api.find(PODS, "default")
    assert error.value.remedy == "kubectl auth can-i list pods -n default"
    assert cluster.server.requests.count(("list", "pods")) == 1


async def test_a_busy_server_is_asked_again(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.busy = 2
    assert len((await api.find(NODES)).items) == 2


async def test_a_server_that_stays_busy_is_an_error(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(requests, "asyncio", SimpleNamespace(sleep=sleep))
    cluster.faults.busy = 1000
    with pytest.raises(StatusError, match="too busy"):
        await api.find(NODES)
    assert waits == pytest.approx([0.1, 0.2, 0.3, 0.4])


async def test_refused_credentials_are_reported(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.unauthorized = True
    with pytest.raises(StatusError, match="does not accept the credentials"):
        await api.find(NODES)


async def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError, match=rf"https://127\.0\.0\.1:{port} is not reachable: connection refused"):
        await Api(load(KubeOptions(server=f"https://127.0.0.1:{port}"))).find(NODES)


async def test_a_name_that_does_not_resolve_is_reported() -> None:
    with pytest.raises(UnreachableError, match="its name does not resolve"):
        await Api(load(KubeOptions(server="https://no-such-host.invalid"))).find(NODES)


async def test_warnings_of_the_server_are_passed_on_once(cluster: FakeCluster, api: Api, warnings: list[str]) -> None:
    cluster.faults.warning = "v1 Thing is deprecated"
    await api.find(NODES)
    await api.find(NODES)
    assert warnings == ["v1 Thing is deprecated"]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ('299 - "v1 Thing is deprecated"', "v1 Thing is deprecated"),
        (r'299 - "say \"no\" to \\" "Tue, 01 Dec 2026 14:00:00 GMT"', 'say "no" to \\'),
        ("without quotes", "without quotes"),
    ],
)
def test_the_text_of_a_warning_is_read_from_its_header(header: str, text: str) -> None:
    assert warning_text(header) == text


async def test_all_missing_rights_are_listed_at_once(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.forbidden |= {("create", "pods"), ("create", "pods/exec")}
    wanted = [Access("list", "pods", "a"), Access("create", "pods", "a"), Access("create", "pods", "a", "exec")]
    assert await api.missing(wanted) == wanted[1:]
    with pytest.raises(ForbiddenError) as error:
        await api.require(wanted, "trace")
    assert "create pods in namespace a: kubectl auth can-i create pods -n a" in str(error.value)
    assert "kubectl auth can-i create pods --subresource=exec -n a" in str(error.value)


async def test_impersonation_is_sent_with_requests(cluster: FakeCluster, tmp_path: Path) -> None:
    path = cluster.write_kubeconfig(tmp_path / "k")
    options = KubeOptions(kubeconfig=str(path), as_user="jane", as_groups=("dev",))
    await Api(load(options)).find(NODES)
    sent = cluster.server.headers[-1]
    assert (sent["Impersonate-User"], sent["Impersonate-Group"]) == ("jane", "dev")
    assert sent["Authorization"] == f"Bearer {cluster.token}"


async def test_a_request_that_takes_too_long_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnreachableError, match="timed out"):
            await Api(load(KubeOptions(server=server, request_timeout=0.2))).find(NODES)
