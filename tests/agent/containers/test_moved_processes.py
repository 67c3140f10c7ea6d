"""Which processes of no container's cgroup are a container's all the same: by the namespaces of its first process."""

from kubectl_gadget.agent.containers.container_programs import MovedProcess, elsewhere

NODE_PIDS, NODE_MOUNTS = 100, 200
OWN = MovedProcess(10, 7, 1000, 1, 101, 201, NODE_MOUNTS, NODE_PIDS)
"""A container's first process."""
SHARING = MovedProcess(20, 8, 1001, 0, NODE_PIDS, 202, NODE_MOUNTS, NODE_PIDS)
"""The same of a pod with the node's PID namespace."""
SYSTEMD = MovedProcess(1, 0, 1, 0, NODE_PIDS, NODE_MOUNTS, 0, 0)


def found(*processes: MovedProcess, now: int = 100) -> list[tuple[int, int]]:
    return [(process.tgid, container) for process, container in elsewhere(processes, 0, NODE_MOUNTS, now)]


def outside(pids: int, mounts: int, level: int = 1) -> MovedProcess:
    return MovedProcess(30, 0, 2000, level, pids, mounts, NODE_MOUNTS, NODE_PIDS)


def test_a_process_in_a_containers_pid_namespace_belongs_to_it() -> None:
    assert found(SYSTEMD, OWN, outside(101, 201), outside(101, NODE_MOUNTS)) == [(2000, 7), (2000, 7)]
    assert found(SYSTEMD, OWN, outside(102, 203, level=2)) == []


def test_with_the_nodes_processes_the_mount_namespace_decides() -> None:
    assert found(SYSTEMD, SHARING, outside(NODE_PIDS, 202, level=0)) == [(2000, 8)]
    assert found(SYSTEMD, SHARING, outside(NODE_PIDS, 203, level=0)) == []


def test_a_tool_of_the_node_in_a_containers_mounts_is_the_nodes() -> None:
    assert found(SYSTEMD, OWN, outside(NODE_PIDS, 201, level=0)) == []


def test_a_tool_that_enters_a_container_later_does_not_belong_to_it() -> None:
    nsenter = OWN._replace(started=99, tgid=1002, pid_namespace=NODE_PIDS, mount_namespace=NODE_MOUNTS, level=0)
    assert found(SYSTEMD, OWN, nsenter, outside(NODE_PIDS, NODE_MOUNTS, level=0)) == []


def test_of_two_containers_of_one_pid_namespace_the_mounts_decide() -> None:
    sandbox = OWN._replace(started=5, container=6, tgid=999, mount_namespace=209)
    assert found(sandbox, OWN, outside(101, 201), outside(101, 209)) == [(2000, 7), (2000, 6)]


def test_the_runtime_in_a_new_containers_cgroup_makes_no_process_of_the_node_the_containers() -> None:
    """Where containerd has mounts of its own, which are not those of process 1."""
    containerd = MovedProcess(3, 0, 1003, 0, NODE_PIDS, 204, NODE_MOUNTS, NODE_PIDS)
    runc = MovedProcess(20, 8, 1004, 0, NODE_PIDS, 204, 204, NODE_PIDS)
    assert found(SYSTEMD, containerd, runc) == []
    made, moved = SHARING._replace(started=21), outside(NODE_PIDS, 202, level=0)
    assert found(SYSTEMD, containerd, runc, made, moved) == [(2000, 8)]


def test_a_first_process_that_has_left_is_known_by_a_child_that_stayed() -> None:
    child = OWN._replace(mount_namespace_above=201)
    assert found(SYSTEMD, child, outside(101, 201)) == [(2000, 7)]
    sharing = SHARING._replace(mount_namespace_above=202)
    assert found(SYSTEMD, sharing, outside(NODE_PIDS, 202, level=0), now=11 * 10**9) == [(2000, 8)]


INNER_PIDS, INNER_MOUNTS = 110, 210
"""Of a node that is a container."""
KUBELET = MovedProcess(40, 0, 3000, 1, INNER_PIDS, INNER_MOUNTS, INNER_MOUNTS, INNER_PIDS)
INNER = MovedProcess(41, 11, 3001, 2, 111, 211, INNER_MOUNTS, INNER_PIDS)
INNER_SHARING = MovedProcess(42, 12, 3002, 1, INNER_PIDS, 212, INNER_MOUNTS, INNER_PIDS)
"""Of a pod that has that node's PID namespace."""


def test_no_pod_of_a_node_that_is_a_container_has_the_nodes_processes() -> None:
    assert found(SYSTEMD, KUBELET, INNER_SHARING) == []
    moved = KUBELET._replace(tgid=3003, mount_namespace=212)
    assert found(SYSTEMD, KUBELET, INNER_SHARING, moved) == [(3003, 12)]


def test_the_runtime_of_a_node_that_is_a_container_makes_none_of_its_processes_the_containers() -> None:
    runc = KUBELET._replace(container=13, tgid=3004)
    assert found(SYSTEMD, KUBELET, INNER, runc) == []


def test_a_pod_that_entered_the_mounts_of_its_node_does_not_have_the_nodes_processes() -> None:
    entered = INNER_SHARING._replace(mount_namespace=INNER_MOUNTS)
    assert found(SYSTEMD, KUBELET, INNER, entered, now=11 * 10**9) == []
