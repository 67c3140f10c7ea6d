"""Scenarios on the stage: all their pods at once under runc, with objects in a double of a cluster whose agent is real,
and one run of `diagnose` that looks at all of them."""

import asyncio
import contextlib
import datetime
import errno
import ipaddress
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kubectl_gadget.demo.pods import DemoContainer, DemoPods, ip_lines, namespace_of
from kubectl_gadget.demo.scene import python_folders
from kubectl_gadget.diagnose.last_words import last_words
from tests.diagnose.deceptive import LOGS, Case
from tests.diagnose.scenarios import DNS, PRELUDE, Scenario
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.fake_cluster.store import now
from tests.waiting import wait_until

NAMESPACE = "shop"
_REVISION = "-5d4f8c9b7c"
"""of a ReplicaSet"""
_BEFORE = "2026-01-01T00:00:00Z"
ILL, TWIN = "ill", "twin"
_NETWORK = ipaddress.ip_network("10.214.0.0/20")
_READY = "/tmp/go"
_LEAST_SECONDS = 7.0
"""How long healthy twins are looked at, also if all ill pods were noticed before: some are refused at first."""
Objects = Mapping[str, Sequence[Mapping[str, Any]]]
_SHELL = f"mkfifo {_READY}; read -r _ <{_READY} || :\n"
_PYTHON = f"os.mkfifo('{_READY}'); open('{_READY}').read()\n"


@dataclass(frozen=True)
class Told:
    """The findings of a run."""

    report: Mapping[str, Any]
    errors: str

    def about(self, pod: str) -> Iterator[tuple[Mapping[str, Any], Sequence[str]]]:
        """Yield the findings about a pod, each with the rules that are above it."""
        for root in self.report["findings"]:
            for finding, above in _all(root, ()):
                whose = *finding["pods"], finding["about"].removesuffix(_REVISION)
                if any(name.endswith(f"/{pod}") for name in whose):
                    yield finding, above


def _all(finding: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[Mapping[str, Any], Sequence[str]]]:
    yield finding, above
    for each in finding["explains"]:
        yield from _all(each, (*above, finding["rule"]))


@dataclass
class _Pod:
    """A pod, with or without a container that runs."""

    name: str
    address: str
    scenario: Scenario
    values: Mapping[str, str]
    uid: str = ""
    container: DemoContainer | None = None

    @property
    def is_server(self) -> bool:
        """True if it is the other pod, which that of the scenario talks to."""
        return self.name.endswith("-server")


class Stage:
    """Pods of scenarios. `folder` is for their files."""

    def __init__(self, pods: DemoPods, folder: Path, certificates: Mapping[str, str]) -> None:
        self._pods = pods
        self._shared = folder / "shared"
        self._shared.mkdir()
        for name in ("lock", "twin"):
            (self._shared / name).touch()
        self._files = {f"srv/{name}.pem": text for name, text in certificates.items()}
        self._free = map(str, list(_NETWORK.hosts())[10:])
        self._nobody, self._dns = str(_NETWORK[-2]), str(_NETWORK[2])
        search = " ".join(f"{part}cluster.local" for part in (f"{NAMESPACE}.svc.", "svc.", ""))
        resolver = f"search {search}\nnameserver {self._dns}\noptions ndots:5 timeout:1 attempts:2\n"
        self._files |= {"etc/resolv.conf": resolver, "etc/nsswitch.conf": "hosts: files dns\n"}
        self._fuse: int | None = None
        self._all: list[_Pod] = []
        self._objects: list[tuple[str, dict[str, Any]]] = []
        self._run(_Pod("dns", self._dns, Scenario("", early=True), {"nobody": self._nobody}), DNS, "kube-system")

    @staticmethod
    def gateway() -> str:
        return f"{_NETWORK[1]}/{_NETWORK.prefixlen}"

    def add(self, scenario: Scenario) -> None:
        """Start both pods of a scenario, and those that they talk to."""
        twin_server = scenario.server if scenario.twin_server is None else scenario.twin_server
        self._add(ILL, scenario, scenario.ill, scenario.server, scenario.objects)
        self._add(TWIN, scenario, scenario.twin if scenario.ill else "", twin_server, scenario.twin_objects)

    def add_healthy(self, name: str, program: str, server: str) -> None:
        """Start a healthy pod, and the one that it talks to."""
        self._add("healthy", Scenario(name, uid=1000 if name == "import-storm" else 0), program, server, {})

    def _add(self, kind: str, scenario: Scenario, program: str, server: str, objects: Objects) -> None:
        title = f"{kind}-{scenario.title}"
        own, other, service = next(self._free), next(self._free), next(self._free)
        values = {"self": own, "server": other, "service": service, "nobody": self._nobody}
        values |= {"title": title, "now": now(), "shared": str(self._shared)}
        self._objects += [(plural, _filled(each, values)) for plural, found in objects.items() for each in found]
        if server:
            pod = _Pod(f"{title}-server", other, scenario, {**values, "other": own})
            self._run(pod, server, also=service if objects.get("endpointslices") else "")
        uid = scenario.uid if kind != TWIN or scenario.twin_uid is None else scenario.twin_uid
        self._run(_Pod(title, own, scenario, {**values, "other": other}), program, uid=uid)

    def _run(self, pod: _Pod, program: str, namespace: str = NAMESPACE, also: str = "", uid: int = 0) -> None:
        self._all.append(pod)
        if not program:
            return
        started = self._pods.start_pod(namespace, pod.name, {}, address=f"{pod.address}/{_NETWORK.prefixlen}")
        pod.uid = started.uid
        if also:
            ip_lines([f"address add {also}/32 dev eth0"], namespace_of(started.sandbox.pid))
        text = _filled(program, pod.values)
        if text.startswith("#!python"):
            text = PRELUDE + ("" if pod.scenario.early else _PYTHON) + text
            command = "exec python3 -B /srv/main"
        else:
            text = ("" if pod.scenario.early else _SHELL) + text
            command = "exec sh /srv/main"
        pod.container = self._pods.add_container(
            started,
            "app",
            ["/bin/sh", "-c", f"exec >/tmp/log 2>&1; {command}"],
            uid=uid,
            privileged=pod.scenario.privileged,
            files={**self._files, "srv/main": text},
            host_folders=[*python_folders(), self._shared],
        )

        if not pod.is_server:
            for file, limit in pod.scenario.limits.items():
                (pod.container.cgroup / file).write_text(limit)
            if pod.scenario.filter and pod.name.startswith(ILL):
                _filter_output(started.sandbox.pid, pod.scenario.filter)
        if pod.scenario.has_volume and pod.name.startswith(ILL):
            self._fuse = _mount_without_server(pod.container.pid)

    def close(self) -> None:
        """Let go those who wait for a file system."""
        if self._fuse is not None:
            os.close(self._fuse)

    def go(self) -> None:
        """Let all programs begin."""
        for pod in self._all:
            if pod.container is not None and not pod.scenario.early:
                fifo = Path(f"/proc/{pod.container.pid}/root{_READY}")
                wait_until(partial(_open_fifo, fifo), f"{pod.name} to wait")
        ending = [pod for pod in self._all if pod.container is not None and pod.scenario.ends]
        for number, kinds in ((signal.SIGTERM, (ILL, TWIN)), (signal.SIGKILL, (ILL,))) if ending else ():
            time.sleep(2)  # for their shells to set their traps; the node's grace
            for pod in ending:
                if pod.container is not None and pod.name.startswith(kinds):
                    os.kill(pod.container.pid, number)

    def logs(self) -> Iterator[str]:
        """Yield the last lines that programs wrote."""
        for pod in self._all:
            if pod.container is not None:
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{pod.container.pid}/root/tmp/log").read_text(errors="replace")
                    yield f"{pod.name}: {text[-300:]}"

    def fill(self, cluster: FakeCluster) -> None:
        """Put all objects into the cluster."""
        for name in (NAMESPACE, "kube-system"):
            if cluster.store.get("namespaces", "", name) is None:
                cluster.add_namespace(name)
        for pod in self._all:
            namespace = NAMESPACE if pod.scenario.rule else "kube-system"
            added = cluster.store.add("pods", namespace, _object(pod))
            log = {ILL: pod.scenario.log, TWIN: pod.scenario.twin_log}.get(pod.name.partition("-")[0], "")
            cluster.store.logs[namespace, pod.name, "app", False] = log
            if (misleads := misleading(pod.scenario)) is not None and pod.name.startswith(ILL):
                cluster.store.logs[namespace, pod.name, "app", True] = misleads.log
            added["metadata"]["creationTimestamp"] = _BEFORE
        for plural, found in self._objects:
            cluster.store.add(plural, NAMESPACE, found)


def _filter_output(pid: int, rule: str) -> None:
    """Add a rule of nftables for what is sent from the network namespace of a process."""
    table = f"table inet t {{ chain c {{ type filter hook output priority 0; {rule}; }}; }}"
    words = ["nsenter", "--net", "--target", str(pid), "nft", "-f", "-"]
    subprocess.run(words, input=table.encode(), check=True)


def _mount_without_server(pid: int) -> int:
    """Mount a file system in a container's mount namespace, and return the descriptor at which nobody answers for it.
    Whoever uses it is blocked like one who waits for an NFS server, until the descriptor is closed."""
    file = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={file},rootmode=40000,user_id=0,group_id=0"
    code = "import ctypes, os; os.mkdir('/tmp/volume')\n"
    code += f"assert not ctypes.CDLL(None).mount(b'nfs:/', b'/tmp/volume', b'fuse', 0, b'{options}')"
    words = ["nsenter", "--mount", "--target", str(pid), "/usr/bin/python3", "-c", code]
    subprocess.run(words, check=True, pass_fds=[file])
    return file


def _open_fifo(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    return True


def misleading(scenario: Scenario) -> Case | None:
    """Return what misleads about a scenario whose container runs: the log of the run before says it."""
    found = LOGS.get(scenario.rule)
    is_possible = scenario.has_program and "status" not in scenario.pod and not scenario.needs
    return found if is_possible and found is not None and last_words(found.log) is not None else None


def _object(pod: _Pod) -> dict[str, Any]:
    """The pod's object, as the API server has it."""
    differs = {} if pod.is_server else dict(pod.scenario.twin_pod if pod.name.startswith(TWIN) else pod.scenario.pod)
    ready = differs.get("ready", True)
    running = {"name": "app", "ready": ready, "restartCount": 0, "state": {"running": {"startedAt": now()}}}
    if not pod.is_server and pod.name.startswith(ILL) and misleading(pod.scenario) is not None:
        ended = {"exitCode": 1, "reason": "Error", "containerID": f"containerd://{pod.name}", "finishedAt": _BEFORE}
        running |= {"restartCount": 1, "lastState": {"terminated": ended}}
    status = {"phase": "Running", "containerStatuses": [running], **differs.get("status", {})}
    status["conditions"] = [*status.get("conditions", ()), {"type": "Ready", "status": str(ready)}]
    if status["phase"] == "Running":
        status |= {"podIP": pod.address, "podIPs": [{"ip": pod.address}]}
    metadata: dict[str, Any] = {"name": pod.name, "labels": {"app": pod.name.removesuffix("-server")}}
    metadata |= differs.get("metadata", {})
    if pod.uid:
        metadata |= {"uid": pod.uid}
    container = {"name": "app", "image": "busybox", **differs.get("container", {})}
    spec = {"nodeName": "node-1", "containers": [container], **differs.get("spec", {})}
    found = {"metadata": metadata, "spec": spec, "status": status}
    return dict(_filled(found, pod.values))


def _filled(found: Any, values: Mapping[str, str]) -> Any:
    if isinstance(found, str):
        for name, value in values.items():
            found = found.replace(f"{{{name}}}", value)
        return found
    if isinstance(found, Mapping):
        return {name: _filled(value, values) for name, value in found.items()}
    return [_filled(each, values) for each in found] if isinstance(found, list) else found


_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


async def told(stage: Stage, folder: Path, expected: Sequence[str], *words: str) -> Told:
    """What `diagnose` says of the pods, which begin when it is attached. It is ended when it has noticed all that is
    expected, and has looked at the others for as long."""
    async with FakeCluster(1) as cluster:
        stage.fill(cluster)
        runner = Runner(cluster.write_kubeconfig(folder / "kubeconfig"))
        await runner.start("diagnose", "-v", "-n", NAMESPACE, "-o", "json", *words)
        await runner.until_said("press Ctrl-C to stop")
        await asyncio.to_thread(stage.go)
        least = asyncio.create_task(asyncio.sleep(_LEAST_SECONDS))
        missed = ""
        try:
            await runner.until_said(*expected)
        except AssertionError as error:  # the tests of those that were not noticed will fail
            missed = str(error)
        await least
        _, out, errors = await runner.end(interrupt=not missed)
    return Told(json.loads(out), missed + errors)


def certificates() -> dict[str, str]:
    """Return keys with certificates as PEM: of an authority that is trusted (ca.pem), and of one that is not."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    today, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)

    def made(name: str, by: Any = None, until: datetime.datetime = today + day) -> tuple[Any, Any, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer, signer = (by[1].subject, by[0]) if by else (subject, key)
        built = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        built = built.not_valid_before(until - 9 * day).not_valid_after(until)
        built = built.add_extension(x509.BasicConstraints(by is None, None), critical=True)
        if by is None:
            uses = dict.fromkeys(_USES, False) | {"key_cert_sign": True}
            built = built.add_extension(x509.KeyUsage(**uses), critical=True)
        built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        owner = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        certificate = built.add_extension(owner, critical=False).sign(signer, hashes.SHA256())
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, *plain)
        return key, certificate, (pem + certificate.public_bytes(serialization.Encoding.PEM)).decode()

    known, unknown = made("ca.test"), made("other-ca.test")
    return {
        "ca": known[1].public_bytes(serialization.Encoding.PEM).decode(),
        "good": made("shop.test", known)[2],
        "expired": made("shop.test", known, today - day)[2],
        "unknown": made("shop.test", unknown)[2],
    }


@contextlib.contextmanager
def staged(
    scenarios: Sequence[Scenario], healthy: Mapping[str, tuple[str, str]], folder: Path, *words: str
) -> Iterator[Told]:
    """One run over these scenarios and healthy pods."""
    with DemoPods(Path(f"/run/kg-diagnose-{os.getpid()}"), gateway=Stage.gateway()) as pods:
        stage = Stage(pods, folder, certificates())
        try:
            for scenario in scenarios:
                stage.add(scenario)
            for name, programs in healthy.items():
                stage.add_healthy(name, *programs)
            expected = [f"noticed: {each.rule} of {NAMESPACE}/{expected_about(each)}" for each in scenarios]
            found = asyncio.run(told(stage, folder, expected, *words))
            result = Told(found.report, "\n".join((found.errors, *stage.logs())))
        finally:
            stage.close()
    yield result


def expected_about(scenario: Scenario) -> str:
    """Return the workload that the finding is about."""
    kind = {"pods-not-created": "rs", "job-failed": "job"}.get(scenario.rule, "pod")
    return f"{kind}/{ILL}-{scenario.title}" + ("-server" if scenario.about == "server" else "")


def assert_named(run: Told, scenario: Scenario) -> None:
    """The ill pod's cause is named, as one finding, and no other."""
    client = f"{ILL}-{scenario.title}"
    pod = f"{client}-server" if scenario.about == "server" else client
    found = [(each, above) for each, above in run.about(pod) if each["rule"] == scenario.rule]
    assert found, run.errors
    finding, above = found[0]
    assert set(above) <= set(scenario.below)
    assert scenario.says in finding["title"]
    roots = {each["rule"] for name in (pod, client) for each, above in run.about(name) if not above}
    assert roots <= {scenario.rule, *scenario.below, *scenario.also}, "one cause, one finding"
    if (misleads := misleading(scenario)) is not None:
        words = [finding[each] for each in ("title", "cause", "remedy")]
        assert not [each for each in misleads.claims if each.lower() in " ".join(words).lower()], words


def assert_not_blamed(run: Told, scenario: Scenario) -> None:
    """Nothing worse than a note is said of the healthy twin, and not what is said of the ill one."""
    names = f"{TWIN}-{scenario.title}", f"{TWIN}-{scenario.title}-server"
    found = [each for name in names for each, _ in run.about(name)]
    assert [each["title"] for each in found if each["severity"] != "note" or each["rule"] == scenario.rule] == []
