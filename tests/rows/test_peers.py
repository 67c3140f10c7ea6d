"""Names of the other ends of connections, in rows."""

import json
import socket
import struct
from dataclasses import replace
from typing import Any

import numpy as np

from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets.schema import Field, RecordLayout
from kubectl_gadget.kube.addresses import Addresses, PodFacts, Tenure
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import Batch, decode, join
from kubectl_gadget.rows.containers import UNKNOWN, Container, Owners
from kubectl_gadget.rows.members import find_column, shown
from kubectl_gadget.rows.rows import Rows
from tests.rows.records import OPEN, column

NS = 1_000_000_000
FIELDS = (
    Field("timestamp", 0, 8, "gadget_timestamp"),
    Field("cgroup", 8, 8, "gadget_cgroup"),
    Field("local", 16, 16, "gadget_ip"),
    Field("remote", 32, 16, "gadget_ip"),
    Field("local_port", 48, 2, "gadget_port"),
    Field("remote_port", 50, 2, "gadget_port"),
    Field("padding", 52, 4, "__u32"),
)
GADGET = replace(
    OPEN,
    name="connections",
    record=RecordLayout("connection", 56, FIELDS),
    columns=(column("local"), column("remote"), column("remote_port")),
)
CLUSTER = Addresses(
    pods={"10.1.0.5": PodFacts("shop", "db-0", node="n2")},
    by_name={("shop", "web"): PodFacts("shop", "web", node="n1", probed=(8080,))},
    services={"10.96.0.1": "default/kubernetes"},
    nodes={"172.30.0.11": "n1"},
    tenures={
        "10.1.0.6": (Tenure(PodFacts("shop", "old"), 0, 30 * NS), Tenure(PodFacts("shop", "new"), 20 * NS)),
    },
    is_known=True,
)


def rows(*ends: tuple[str, int], seconds: int = 10, port: int = 8080, cluster: Addresses | None = CLUSTER) -> Batch:
    data = b""
    for ip, remote_port in ends:
        packed = [bytes(10) + b"\xff\xff" + socket.inet_aton(text) for text in ("10.1.0.9", ip)]
        record = struct.pack("<QQ16s16sHHI", seconds * NS, 1, *packed, port, remote_port, 0)
        data += struct.pack("<II", len(record), 0) + record
    batch = decode(GADGET, "n1", data)
    batch.owners = Owners(np.ones(len(batch), np.intp), [UNKNOWN, Container("container", "shop", "web", "c")])
    batch.addresses = None if cluster is None else lambda: cluster
    return batch


def texts(batch: Batch) -> list[str]:
    found = find_column(GADGET, "remote")
    assert found is not None
    return shown(batch, found)


def record(batch: Batch) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MemberRows().lines(Rows([batch]))[0])
    return found


def test_a_table_shows_the_best_name_and_json_has_the_address_beside_it() -> None:
    batch = rows(("10.1.0.5", 5432), ("10.96.0.1", 443), ("8.8.8.8", 53))
    assert texts(batch) == ["shop/db-0", "svc/default/kubernetes", "8.8.8.8"]
    assert record(batch) == {
        "local": "10.1.0.9",
        "remote": "10.1.0.5",
        "remote_kind": "pod",
        "remote_node": "n2",
        "remote_namespace": "shop",
        "remote_pod": "db-0",
        "remote_port": 5432,
    }


def test_a_run_without_names_has_rows_as_before() -> None:
    batch = rows(("10.1.0.5", 5432), cluster=None)
    assert texts(batch) == ["10.1.0.5"]
    assert record(batch) == {"local": "10.1.0.9", "remote": "10.1.0.5", "remote_port": 5432}


def test_each_row_is_named_by_its_own_time_and_ports() -> None:
    early, late = (rows(("10.1.0.6", 80), ("172.30.0.11", 40000), seconds=seconds) for seconds in (10, 50))
    joined = join([early, late])
    assert texts(joined) == ["shop/old", "kubelet", "shop/new", "kubelet"]
    assert texts(rows(("172.30.0.11", 40000), port=9999)) == ["node/n1"]


def test_names_that_arrive_later_are_in_the_rows_that_are_written_later() -> None:
    present = Addresses()
    batch = rows(("10.1.0.5", 80))
    batch.addresses = lambda: present
    chosen = batch.select(compile_filter("remote_port == 80", [GADGET], "--filter").select(batch).raw("local_port") > 0)
    assert texts(batch) == ["10.1.0.5"]
    present = CLUSTER
    assert texts(chosen) == ["shop/db-0"]


def test_filters_use_the_names() -> None:
    batch = rows(("10.1.0.5", 5432), ("10.96.0.1", 443), ("8.8.8.8", 53))
    for expression, found in {
        'remote_pod == "db-0"': ["shop/db-0"],
        'remote_kind == "world"': ["8.8.8.8"],
        'remote_service == "kubernetes" && remote_namespace == "default"': ["svc/default/kubernetes"],
    }.items():
        assert texts(compile_filter(expression, [GADGET], "--filter").select(batch)) == found
