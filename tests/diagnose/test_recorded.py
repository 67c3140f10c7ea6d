"""A recording of `diagnose` keeps what its replay needs to say the same, and no values of the environment."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.cli.main import run
from kubectl_gadget.diagnose.cluster import Cluster, Places
from kubectl_gadget.diagnose.recorded import cluster_of, facts, peer_rows
from kubectl_gadget.diagnose.rules import OBJECTS, load, own_files
from kubectl_gadget.diagnose.search import runs
from kubectl_gadget.recording.writer import RecordingWriter
from tests.diagnose.seen import NOW, endpoints, event, pod, service
from tests.examples import examples
from tests.recording.files import SECOND, TRACED

WEB, DB = "web-5d4f8c9b7c-x2x7k", "db-7d4b9c6f58-kk2bz"
SECRET = "hunter2"


def cluster() -> Cluster:
    env = [{"name": "PASSWORD", "value": SECRET}]
    header = {"httpGet": {"port": 80, "httpHeaders": [{"name": "Authorization", "value": SECRET}]}}
    web = pod(WEB, "10.1.0.1", {"app": "web"}, container={"env": env, "livenessProbe": header})
    web["spec"]["volumes"] = [
        {"name": "conf", "secret": {"secretName": "shop-conf", "defaultMode": 256}},
        {"name": "other", "csi": {"driver": "a", "volumeAttributes": {"password": SECRET}}},
    ]
    web["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": SECRET}
    policy = {
        "metadata": {"name": "closed", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
    }
    found = Cluster(
        {
            "pods": [web, pod(DB, "10.1.0.2", {"app": "db"})],
            "services": [service("db", "10.9.0.1", 5432, 5432, app="db")],
            "endpointslices": [endpoints("db", ["10.1.0.2"])],
            "events": [event(WEB, "BackOff", "back-off", 4)],
            "networkpolicies": [policy],
        },
        NOW,
    )
    found.last_words = {("shop", WEB): {"app": {"says": "module", "name": "flask", "exit_code": 1}}}
    return found


def kept(of: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(facts(of, {("shop", WEB)}, [("shop", WEB)], ())))
    return found


def told(of: Cluster, name: str) -> Iterator[object]:
    for kind in OBJECTS:
        yield kind, list(of.records(kind, {("shop", name)}))
    for address in ("10.1.0.1", "10.1.0.2", "10.9.0.1", "10.1.0.99"):
        yield address, of.peer(address, 5432, Places())


def test_rules_see_the_same_in_a_replay() -> None:
    live = cluster()
    assert list(told(cluster_of([kept(live)]), WEB)) == list(told(live, WEB))


def test_values_of_the_environment_headers_and_attributes_are_not_kept() -> None:
    text = json.dumps(kept(cluster()))
    assert "PASSWORD" in text
    assert SECRET not in text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=9),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=examples(100))
def test_a_recording_from_anybody_is_read_or_refused(data: st.DataObject) -> None:
    found: Any = kept(cluster())
    at = found
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(range(len(at)) if isinstance(at, list) else sorted(at)))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            at[key] = data.draw(VALUES)
            break
        at = at[key]
    with contextlib.suppress(ValueError):
        list(told(cluster_of([found]), WEB))
    list(peer_rows(found.get("peer_rows"), ["snapshot_socket"]))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ({}, "it has nothing of the API server: no status of pods"),
        ({"diagnose": None}, "it has nothing of the API server: no status of pods"),
        ({"diagnose": [1]}, "it has nothing of the API server: no status of pods"),
        (
            {"diagnose": {"pod": [{"namespace": "shop", "pod": WEB}]}},
            "an earlier version recorded it, without services",
        ),
        ({"diagnose": kept(cluster())}, ""),
    ],
)
def test_what_a_recording_did_not_keep_is_said(
    end: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gadgets = [each.gadget for each in runs(load(own_files()))]
    described = [{"name": each.name, "parameters": {}, "description": each.to_json()} for each in gadgets]
    meta = {"version": "1", "command": ["diagnose"], "gadgets": described, "interval": 1}
    path = tmp_path / "a.kgr"
    writer = RecordingWriter(path, meta, print)
    writer.step(0, 90 * SECOND, [])
    writer.step(1, 120 * SECOND, [])
    names = tuple(each.name for each in gadgets)
    assert writer.close({"seconds": 1.0, **end}, {**TRACED, "gadgets": list(names)})

    code = run(["replay", str(path), "diagnose", "-o", "json", "--fail-on-finding", "critical"])
    report = json.loads(capsys.readouterr().out)
    found = [why for why in report["not_seen"] if why.startswith(f"{path}: ")]
    assert [each.removeprefix(f"{path}: ").startswith(said) for each in found] == [True] * bool(said), report
    assert code == (5 if said else 0), report

    run(["replay", str(path), "diagnose"])
    text = " ".join(capsys.readouterr().out.split())
    assert (f"not seen: {path}: {said}" in text) == bool(said), text
