"""Rules applied to what was seen: one finding per cause, its symptoms below it, and none where nothing is wrong."""

import pytest

from kubectl_gadget.diagnose import observations
from tests.diagnose.seen import Seen, connect, endpoints, event, pod, service

WEB, DB = "web-5d4f8c9b7c-x2x7k", "db-7d4b9c6f58-kk2bz"


def shop(**more: object) -> Seen:
    objects = {
        "pods": [pod(WEB, "10.1.0.1", {"app": "web"}), pod(DB, "10.1.0.2", {"app": "db"})],
        "services": [service("db", "10.9.0.1", 5432, 5432, app="db")],
        "endpointslices": [endpoints("db", ["10.1.0.2"])],
        "nodes": [],
        "events": [],
        **more,
    }
    return Seen(**objects)  # type: ignore[arg-type]


def test_a_server_on_the_loopback_address_is_the_cause_and_the_refusals_are_below_it() -> None:
    seen = shop().row(WEB, "trace_tcp", connect("10.9.0.1", 5432), 9).listens(DB, ("127.0.0.1", 5432))
    (found,) = seen.findings
    assert found.rule.name == "listens-on-loopback"
    assert found.about == "shop/deploy/db"
    assert found.words.title == "deploy/db listens on the loopback address only at port 5432: deploy/web cannot connect"
    assert found.pods == {("shop", DB)}
    assert found.others == {("shop", WEB)}
    assert [each.rule.name for each in found.explains] == ["connection-refused"]


def test_a_wrong_target_port_names_the_ports_that_would_do() -> None:
    seen = shop().row(WEB, "trace_tcp", connect("10.9.0.1", 5432), 3).listens(DB, ("0.0.0.0", 5433))
    (found,) = seen.findings
    assert found.rule.name == "wrong-target-port"
    assert "which listens on 5433" in found.words.title


def test_a_server_that_listens_where_it_should_is_nobodys_cause() -> None:
    seen = shop().row(WEB, "trace_tcp", connect("10.9.0.1", 5432, ""), 9).listens(DB, ("0.0.0.0", 5432))
    assert seen.roots == []


def test_one_refusal_among_connections_that_work_is_no_finding() -> None:
    seen = shop().listens(DB, ("0.0.0.0", 5432))
    seen.row(WEB, "trace_tcp", connect("10.9.0.1", 5432)).row(WEB, "trace_tcp", connect("10.9.0.1", 5432, ""), 9)
    assert seen.roots == []


def test_a_service_without_pods_and_one_whose_pods_are_not_ready_differ() -> None:
    nobody = shop(endpointslices=[endpoints("db")])
    assert nobody.row(WEB, "trace_tcp", connect("10.9.0.1", 5432, "ETIMEDOUT")).roots == ["service-without-endpoints"]
    pods = [pod(WEB, "10.1.0.1"), pod(DB, "10.1.0.2", {"app": "db"}, ready=False)]
    waiting = shop(endpointslices=[endpoints("db", others=["10.1.0.2"])], pods=pods)
    found = waiting.row(WEB, "trace_tcp", connect("10.9.0.1", 5432, "ETIMEDOUT")).findings
    assert found[0].rule.name == "service-pods-not-ready"
    assert found[0].about == "shop/deploy/db"


def test_an_address_of_no_pod_is_told_only_where_the_cluster_is_known() -> None:
    row = connect("10.1.0.77", 80, "ETIMEDOUT")
    assert shop().row(WEB, "trace_tcp", row).roots == ["address-of-no-pod"]
    assert Seen().row(WEB, "trace_tcp", row).roots == ["no-answer"]


def test_pods_of_one_workload_are_one_finding() -> None:
    pods = [pod(f"web-5d4f8c9b7c-{end}", f"10.1.0.{number}") for number, end in enumerate(("x2x7k", "bbbbb", "ccccc"))]
    seen = shop(pods=[*pods, pod(DB, "10.1.0.9", {"app": "db"})], endpointslices=[endpoints("db", ["10.1.0.9"])])
    for each in pods:
        seen.row(each["metadata"]["name"], "trace_tcp", connect("10.9.0.1", 5432), 2)
    (found,) = seen.findings
    assert (found.rule.name, len(found.pods), found.of, found.count) == ("connection-refused", 3, 3, 6)


def test_a_crash_loop_is_below_what_the_process_missed() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    ill = pod(WEB, "10.1.0.1", state=waiting, last=last, restarts=4, ready=False)
    seen = Seen(pods=[ill])
    seen.row(WEB, "trace_open", {"error": "ENOENT", "path": "/etc/shop/app.conf", "comm": "app"})
    seen.row(WEB, "trace_exit", {"code": 1, "container_pid": 1, "comm": "app"})
    (found,) = seen.findings
    assert found.rule.name == "config-file-missing"
    assert {each.rule.name for each in found.all()} >= {"exits-with-error", "crash-loop"}


def test_files_that_are_searched_for_in_several_folders_are_no_cause() -> None:
    seen = Seen(pods=[pod(WEB, "10.1.0.1")])
    for folder in ("/usr", "/usr/bin"):
        seen.row(WEB, "trace_open", {"error": "ENOENT", "path": f"{folder}/pyvenv.cfg", "comm": "python3"})
    seen.row(WEB, "trace_exit", {"code": 1, "container_pid": 1, "comm": "python3"})
    assert seen.roots == ["exits-with-error"]


def test_a_probe_for_another_port_is_named_with_the_port_that_listens() -> None:
    container = {"readinessProbe": {"tcpSocket": {"port": 8080}}}
    ill = pod(WEB, "10.1.0.1", container=container, ready=False)
    refused = event(WEB, "Unhealthy", "Readiness probe failed: dial tcp 10.1.0.1:8080: connect: connection refused", 20)
    seen = Seen(pods=[ill], events=[refused])
    seen.row(WEB, "snapshot_socket", {"state": "LISTEN", "local": "0.0.0.0", "local_port": 8000})
    (found,) = seen.findings
    assert found.rule.name == "probe-wrong-port"
    assert "8080" in found.words.title
    assert "8000" in found.words.remedy


def test_what_a_pod_that_never_started_lacks_is_read_from_its_status() -> None:
    reasons = {
        "image-not-pulled": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
        "config-missing": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "a" not found'}},
        "program-cannot-start": {
            "waiting": {"reason": "RunContainerError", "message": 'exec: "/app": stat /app: no such file or directory'}
        },
    }
    for name, state in reasons.items():
        assert Seen(pods=[pod("job", "", state=state, ready=False)]).roots == [name]


def test_a_healthy_pod_has_no_findings() -> None:
    seen = shop().listens(WEB, ("0.0.0.0", 80))
    for row in (
        {"error": "ENOENT", "path": "/usr/lib/python3/site.py", "comm": "app"},
        {"error": "EACCES", "path": "/proc/1/mem", "comm": "app"},
    ):
        seen.row(WEB, "trace_open", row, 20)
    seen.row(WEB, "trace_exit", {"code": 1, "container_pid": 88, "comm": "grep"}, 5)
    seen.row(WEB, "trace_dns", {"role": "client", "rcode": "NXDOMAIN", "name": "db.shop.svc.cluster.local."}, 5)
    assert seen.roots == []


def test_names_cannot_write_a_findings_words() -> None:
    hostile = "x\n\x1b[31mCRITICAL  all is well{self.pod}\u202e"
    seen = Seen(pods=[pod(WEB, "10.1.0.1")]).row(WEB, "trace_file", {"error": "EROFS", "path": hostile, "comm": "a"})
    (found,) = seen.findings
    assert "\n" not in found.words.title
    assert "\x1b" not in found.words.title
    assert "\u202e" not in found.words.title
    assert "{self.pod}" in found.words.title, "what a name looks like is not filled in"


def test_ids_are_the_same_in_each_run_and_differ_by_cause() -> None:
    def ids(name: str) -> list[str]:
        row = {"role": "client", "rcode": "NXDOMAIN", "type": "A", "name": name}
        return [each.id for each in Seen(pods=[pod(WEB, "10.1.0.1")]).row(WEB, "trace_dns", row).findings]

    assert ids("a.") == ids("a.") != ids("b.")


def test_a_network_policy_is_named_only_if_the_server_listens_and_it_selects_its_pod() -> None:
    def policy(**labels: str) -> dict[str, object]:
        spec = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"]}
        return {"metadata": {"name": "db-only", "namespace": "shop"}, "spec": spec}

    unanswered = connect("10.1.0.2", 5432, "ETIMEDOUT")
    protects = shop(networkpolicies=[policy(app="db")]).listens(DB, ("0.0.0.0", 5432))
    (found,) = protects.row(WEB, "trace_tcp", unanswered).findings
    assert found.rule.name == "network-policy-drops"
    assert "db-only" in found.words.title
    another = shop(networkpolicies=[policy(app="cart")]).listens(DB, ("0.0.0.0", 5432))
    assert another.row(WEB, "trace_tcp", unanswered).roots == ["no-answer"]


def test_a_request_that_is_lost_on_a_kept_connection_names_the_idle_time() -> None:
    lost = {"role": "client", "errno": 104, "idle": 5_000_000_000, "remote": "10.1.0.2", "remote_port": 80}
    (found,) = Seen(pods=[pod(WEB, "10.1.0.1")]).row(WEB, "trace_http", lost).findings
    assert found.rule.name == "idle-connection-reset"
    assert "idle for 5 s" in found.words.title


def test_a_kill_for_memory_explains_the_status_and_the_crash_loop() -> None:
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"resources": {"limits": {"memory": "64Mi"}}}
    seen = Seen(pods=[pod(WEB, "10.1.0.1", container=container, state=state, last=killed, restarts=5, ready=False)])
    seen.row(WEB, "trace_oomkill", {"comm": "python3", "limit": 64 << 20, "anon_rss": 63 << 20})
    (found,) = seen.findings
    assert found.rule.name == "killed-for-memory"
    assert "63 MiB of a limit of 64 MiB" in found.words.title
    assert {each.rule.name for each in found.all()} >= {"oom-killed", "crash-loop"}


def test_the_last_rollout_is_said_beside_the_cause() -> None:
    def replica_set(revision: int, image: str) -> dict[str, object]:
        return {
            "metadata": {
                "name": f"web-{revision}",
                "namespace": "shop",
                "creationTimestamp": "2026-09-21T14:11:20Z",
                "annotations": {"deployment.kubernetes.io/revision": str(revision)},
                "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": True}],
            },
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "app", "image": image}]}}},
        }

    seen = shop(replicasets=[replica_set(1, "web:1"), replica_set(2, "web:2")])
    seen.row(WEB, "trace_file", {"error": "EROFS", "path": "/data/x", "comm": "web"})
    (found,) = seen.findings
    assert found.changed == "2 min ago, revision 2: +app=web:2, -app=web:1"


def test_what_was_lost_in_a_flood_is_not_taken_for_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of many servers: that one of the last refused before it worked is no finding."""
    monkeypatch.setattr(observations, "MOST_KEYS", 3)
    seen = Seen()
    for number in range(5):
        seen.row(WEB, "trace_tcp", connect(f"203.0.113.{number}", 9000, ""))
    assert seen.row(WEB, "trace_tcp", connect("203.0.113.4", 9000), 3).roots == []
    assert not seen.observations.is_whole


def test_what_a_finding_is_made_of_is_needed() -> None:
    """So it stays, however many other processes fail later."""
    seen, other = shop(), {"error": "ENOENT", "failed_on": "path", "base": "x", "path": "/bin/x", "pid": 8}
    seen.row(WEB, "trace_exec", {**other, "base": "gunicorn", "path": "/app/gunicorn", "pid": 7})
    seen.row(WEB, "trace_exec", other).row(WEB, "trace_exit", {"code": 127, "pid": 7, "comm": "sh"})
    assert [each.key for each in seen.findings] == [("gunicorn",)]
    rule = next(rule for rule in seen.rules if rule.name == "program-not-found")
    failed, _, ended = ({each.key: each.is_needed for each in seen.observations.of(of)} for of in rule.seen)
    assert failed == {("gunicorn", 7): True, ("x", 8): False}
    assert ended == {(7, "sh"): True}
