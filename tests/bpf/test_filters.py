"""The filter that all gadgets share: by cgroup, the container above it, and the node's own cgroups."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.tracer import Tracer, pid_level

pytestmark = pytest.mark.bpf
CONTAINER = 0x80
WANTED, UNWANTED, WANTED_HOST, UNWANTED_HOST = CONTAINER | 1, CONTAINER | 2, 3, 4
UNKNOWN_CGROUP = 1
"""The bit in `marks`."""


def cgroup_mount() -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    pytest.skip("no cgroup v2 is mounted")


class Tree:
    """A chain of cgroups under the root: node/container/nested."""

    def __init__(self) -> None:
        self.node = cgroup_mount() / f"test-{uuid.uuid4().hex}"
        self.container = self.node / "container"
        self.nested = self.container / "nested"
        for cgroup in (self.node, self.container, self.nested):
            cgroup.mkdir()

    def remove(self) -> None:
        for cgroup in (self.nested, self.container, self.node):
            cgroup.rmdir()


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = Tree()
    yield tree
    tree.remove()


def id_of(cgroup: Path) -> int:
    return cgroup.stat().st_ino


def traced(cgroup: Path, verdicts: dict[int, int], node: Path | None = None) -> list[dict[str, Any]]:
    """The records of one open in `cgroup`."""
    path = f"/{uuid.uuid4().hex}"

    def deed() -> None:
        (cgroup / "cgroup.procs").write_text("0")
        deeds.openat(path.encode(), os.O_RDONLY)

    variables = {"gadget_node_cgroup": id_of(node)} if node else {}
    with Tracer("trace_open", verdicts=verdicts, variables=variables) as tracer:
        assert deeds.in_child(deed)[1] == 0
        return [record for record in tracer.records() if record["path"] == path]


def is_sent(records: list[dict[str, Any]], mark: int = 0) -> bool:
    return [record["marks"] for record in records] == [mark]


def test_a_wanted_container_is_sent(tree: Tree) -> None:
    (record,) = traced(tree.container, {id_of(tree.container): WANTED})
    assert (record["marks"], record["cgroup"]) == (0, id_of(tree.container))


def test_an_unwanted_container_is_not_sent(tree: Tree) -> None:
    assert traced(tree.container, {id_of(tree.container): UNWANTED}) == []


@pytest.mark.parametrize(("verdict", "sent"), [(WANTED_HOST, True), (UNWANTED_HOST, False)])
def test_a_cgroup_of_the_host_goes_by_its_own_verdict(tree: Tree, verdict: int, sent: bool) -> None:
    assert is_sent(traced(tree.container, {id_of(tree.container): verdict})) is sent


@pytest.mark.parametrize(("verdict", "sent"), [(WANTED, True), (UNWANTED, False)])
def test_what_happens_below_a_container_is_the_containers(tree: Tree, verdict: int, sent: bool) -> None:
    records = traced(tree.nested, {id_of(tree.container): verdict})
    assert is_sent(records) is sent
    assert {record["cgroup"] for record in records} <= {id_of(tree.container)}


def test_no_number_of_levels_below_a_container_hides_anything(tree: Tree) -> None:
    deep = tree.nested.joinpath(*["deep"] * 40)
    deep.mkdir(parents=True)
    try:
        (record,) = traced(deep, {id_of(tree.container): WANTED}, tree.node)
        assert traced(deep, {id_of(tree.container): UNWANTED}, tree.node) == []
    finally:
        while deep != tree.nested:
            deep.rmdir()
            deep = deep.parent
    assert (record["marks"], record["cgroup"]) == (0, id_of(tree.container))


def test_below_a_container_there_is_no_other_one(tree: Tree) -> None:
    assert is_sent(traced(tree.nested, {id_of(tree.node): WANTED, id_of(tree.container): UNWANTED}))
    assert traced(tree.nested, {id_of(tree.node): UNWANTED, id_of(tree.container): WANTED}) == []


def test_below_a_container_without_names_the_client_decides(tree: Tree) -> None:
    (record,) = traced(tree.nested, {id_of(tree.container): CONTAINER})
    assert (record["marks"], record["cgroup"]) == (UNKNOWN_CGROUP, id_of(tree.container))


def test_the_verdict_on_a_cgroup_of_the_host_is_not_inherited(tree: Tree) -> None:
    for verdict in (WANTED_HOST, UNWANTED_HOST):
        assert is_sent(traced(tree.nested, {id_of(tree.container): verdict}), UNKNOWN_CGROUP)


def test_events_of_an_unreported_cgroup_are_sent_with_a_mark(tree: Tree) -> None:
    assert is_sent(traced(tree.container, {}), UNKNOWN_CGROUP)


def test_an_unknown_cgroup_of_another_node_is_not_sent(tree: Tree) -> None:
    other = cgroup_mount() / f"test-{uuid.uuid4().hex}"
    other.mkdir()
    try:
        assert traced(other, {}, tree.node) == []
        assert is_sent(traced(tree.nested, {}, tree.node), UNKNOWN_CGROUP)
        assert is_sent(traced(tree.node, {}, tree.node), UNKNOWN_CGROUP)
    finally:
        other.rmdir()


def test_pids_are_numbered_as_the_node_and_as_the_container_see_them() -> None:
    path = f"/{uuid.uuid4().hex}"

    def deed() -> None:
        os.unshare(os.CLONE_NEWPID)
        deeds.in_child(lambda: deeds.openat(path.encode(), os.O_RDONLY))

    with Tracer("trace_open") as tracer:
        above, code = deeds.in_child(deed)
        (record,) = [record for record in tracer.records() if record["path"] == path]
    assert code == 0
    assert (record["ppid"], record["container_pid"]) == (above, 1)
    assert record["pid"] == record["tid"] > 1


def test_a_node_in_a_pid_namespace_sees_its_own_numbers() -> None:
    path = f"/{uuid.uuid4().hex}"

    def in_node() -> None:
        """The second process of the node, whose numbers are small."""
        deeds.in_child(lambda: deeds.openat(path.encode(), os.O_RDONLY))

    def node() -> None:
        os.unshare(os.CLONE_NEWPID)
        deeds.in_child(in_node)

    with Tracer("trace_open", variables={"gadget_node_pid_level": pid_level() + 1}) as tracer:
        assert deeds.in_child(node)[1] == 0
        (record,) = [record for record in tracer.records() if record["path"] == path]
    assert (record["pid"], record["tid"], record["ppid"], record["container_pid"]) == (2, 2, 1, 2)
