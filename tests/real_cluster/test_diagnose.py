"""`diagnose` finds the causes of many ill pods in one namespace of a real cluster (pytest --cluster)."""

import json
import os
from typing import Any

import pytest

from tests.real_cluster.ill_pods import ILL, objects
from tests.real_cluster.real_cluster import AGENT_FLAGS, gadget, listed, run_pods
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
PYTHON = os.environ.get("KUBECTL_GADGET_TEST_PYTHON", "python:3.13-slim")
NEVER_START = 5
"""Pods that wait for an image, a volume, a node, a configuration or a program."""
WANTED = 0.95
"""The share of causes that must be named."""


def addresses(namespace: str) -> dict[str, str]:
    """Return the addresses of pods, by the label `app`."""
    pods = listed("pods", "-n", namespace)
    return {one["metadata"]["labels"]["app"]: one["status"].get("podIP", "") for one in pods}


def test_causes_in_a_namespace_of_ill_pods_are_named_and_no_others(namespace: str) -> None:
    node = next(item["metadata"]["name"] for item in listed("nodes"))
    unused = {"NODE": node}
    run_pods(namespace, *objects("others", PYTHON, unused), *objects("servers", PYTHON, unused))
    count = len(objects("servers", PYTHON, unused))
    wait_until(lambda: sum(map(bool, addresses(namespace).values())) == count)
    known = addresses(namespace)
    nobody = f"{known['db'].rpartition('.')[0]}.250"
    run_pods(namespace, *objects("clients", PYTHON, unused | known | {"NOBODY": nobody}))
    wait_until(lambda: starting(namespace) <= NEVER_START, state=lambda: starting(namespace), seconds=900)
    words = ("--timeout", "45s", "--start-timeout", "3m", "-o", "json", *AGENT_FLAGS)
    result = gadget("diagnose", "-n", namespace, *words)
    assert result.returncode == 0, result.stderr
    roots = json.loads(result.stdout)["findings"]
    missed, wrong = judged(namespace, roots)
    assert len(missed) <= (1 - WANTED) * len(ILL), f"{missed=} {wrong=} {result.stdout}"
    assert not wrong, f"{missed=} {wrong=}"


def starting(namespace: str) -> int:
    """Return how many pods have no container that runs or ran."""
    pods = [one["status"].get("containerStatuses", ()) for one in listed("pods", "-n", namespace)]
    return sum(
        not any({"running", "terminated"} & (each["state"].keys() | each["lastState"].keys()) for each in statuses)
        for statuses in pods
    )


def judged(namespace: str, roots: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the causes that are not among the roots, and what is claimed beside them of workloads in these scenes."""
    found = {(root["rule"], root["about"]) for root in roots}
    missed, allowed = [], set()
    for ill in ILL:
        expected = {(rule, f"{namespace}/{ill.about}") for rule in ill.rules}
        allowed |= expected
        if not expected & found:
            missed.append(ill.name)
    claimed = [root for root in roots if root["severity"] != "note"]
    return missed, [
        f"{root['id']}: {root['title']}" for root in claimed if (root["rule"], root["about"]) not in allowed
    ]
