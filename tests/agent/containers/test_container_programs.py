"""container_programs.py: what is loaded where the kernel refuses a part."""

import errno

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject, program_info
from kubectl_gadget.agent.containers.container_programs import ADOPT, ContainerPrograms
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.errors import AgentError

pytestmark = pytest.mark.bpf


@pytest.fixture
def without_task_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    load = BpfObject.load

    def refuse(object: BpfObject) -> None:
        if ADOPT in object.chosen:
            raise Failure("bpf_object__load", errno.EINVAL, ["map 'origins': failed to create: Invalid argument"])
        load(object)

    monkeypatch.setattr(BpfObject, "load", refuse)


@pytest.mark.usefixtures("without_task_storage")
def test_cgroups_are_followed_where_the_kernel_cannot_follow_moves() -> None:
    containers = Containers()
    try:
        (warning,) = containers.take_warnings()
        assert "attributed to the node" in warning
        assert list(containers.shared) == ["gadget_containers"]
        assert containers.everything()
    finally:
        containers.close()


@pytest.mark.usefixtures("without_task_storage")
def test_the_map_that_old_kernels_lack_is_not_made_there() -> None:
    programs = ContainerPrograms()
    program_info(programs.object.required_map("gadget_moved").fd)  # works with maps as well
    with pytest.raises(Failure, match="Invalid argument"):
        program_info(programs.object.required_map("origins").fd)
    programs.close()


def test_an_object_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.containers.container_programs.OF_MOVES", ("flown",))
    with pytest.raises(AgentError, match="was built for another version: it lacks flown"):
        ContainerPrograms()
