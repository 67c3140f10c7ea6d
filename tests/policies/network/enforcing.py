"""Runs `kubectl gadget enforce --network-policy` on this machine while a block does its deed."""

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.gadget_run import GADGET, until_under_way
from tests.waiting import PATIENCE

COMMAND = [*GADGET, "enforce", "--local", "-A", "-o", "json"]
Object = dict[str, Any]


def known_pod(namespace: str, name: str, app: str, address: str | None = None) -> Object:
    """What the cluster says of a pod."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app": app}}
    status = {"status": {"podIP": address}} if address else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, **status}


@contextmanager
def enforcing(
    folder: Path,
    policies: Sequence[Object],
    pods: Sequence[Object],
    *arguments: str,
    end: signal.Signals = signal.SIGINT,
) -> Iterator[list[Object]]:
    """The rows are in the list after the block. Its files lie in `folder`."""
    (folder / "policies.yaml").write_text(yaml.safe_dump_all(policies))
    (folder / "objects.yaml").write_text(yaml.safe_dump({"kind": "List", "items": list(pods)}))
    files = ["--network-policy", str(folder / "policies.yaml"), "--objects", str(folder / "objects.yaml")]
    found: list[Object] = []
    with subprocess.Popen(
        [*COMMAND, *files, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until_under_way(process)
        try:
            yield found
        finally:
            process.send_signal(end)
            out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == (-end if end == signal.SIGKILL else 128 + end), errors
    found += map(json.loads, out.splitlines())
