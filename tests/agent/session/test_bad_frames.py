"""Whatever a client sends is refused as a frame or as a request; nothing else comes of it, and nothing stays loaded."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.containers import identity
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.tracking import Containers, ContainerSelection
from kubectl_gadget.agent.session.session import Session
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import Frame, FrameType
from kubectl_gadget.wire.message import read
from tests.agent.conftest import Compiled
from tests.examples import examples
from tests.spoilt import as_json, spoilt

FILTER: dict[str, Any] = {
    "namespaces": ["default"],
    "pods": None,
    "containers": ["main"],
    "exclude_pods": ["u1"],
    "host": False,
}
POD = ContainerIdentity("c1", 7, "default", "xwing", "u1", "main", "", "containerd", "container")
some = settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(spoilt(FILTER).map(as_json))
def test_a_mutated_filter_is_accepted_or_refused(payload: bytes) -> None:
    try:
        ContainerSelection(read(FilterSpec, payload, "FILTER")).verdict(POD)
    except GadgetError:
        return


@given(st.text() | st.lists(st.sampled_from(["kubepods", "pod", "/", "-", ".slice", "a" * 64, "_", "\n"])).map("".join))
def test_any_path_of_a_cgroup_is_examined(path: str) -> None:
    identity.container_id(path)
    assert isinstance(identity.pod_uid(path), str)
    assert isinstance(identity.cgroup_belongs(path, path, {"linux": {"cgroupsPath": path}}), bool)


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    containers = Containers()
    yield containers
    containers.close()


def take(containers: Containers, elf: bytes, *frames: Frame) -> None:
    """What a session does with these frames. GadgetError is what it tells the client."""
    reader, writer = os.pipe()
    session = Session(reader, writer)
    session.containers = containers
    session.objects.append(elf)
    try:
        for frame in frames:
            session.handle(frame)
    except GadgetError:
        return
    finally:
        for one in session.sources:
            one.detach()
        session.containers = None  # its owner is the caller
        session.free()
        os.close(reader)
        os.close(writer)


@pytest.mark.bpf
@given(data=st.data())
@some
def test_a_mutated_request_is_carried_out_or_refused_with_a_message(
    opens: Compiled, containers: Containers, data: st.DataObject
) -> None:
    gadget = {"object": 0, **opens.gadget("openat_exit", ring_bytes=1 << 16)}
    run = data.draw(spoilt({"gadgets": [gadget], "filter": FILTER}))
    take(containers, opens.elf, Frame(FrameType.RUN, as_json(run)))


LATER: dict[FrameType, dict[str, Any]] = {
    FrameType.FILTER: FILTER,
    FrameType.HEARTBEAT: {"id": 1},
    FrameType.LOOK_UP: {"functions": ["sys_write"], "tracepoints": ["sched/sched_switch"], "lsm": ["file_open"]},
    FrameType.UPDATE: {
        "gadget": 0,
        "set": {"peers": {"00": "00"}},
        "containers": {"table": "pods", "pods": {"a/b": "00"}, "namespaces": {}, "other": "00", "host": "00"},
        "remove": {"peers": ["00"]},
    },
}


@pytest.mark.bpf
@given(data=st.data())
@some
def test_no_other_mutated_frame_is_an_internal_error(
    opens: Compiled, containers: Containers, data: st.DataObject
) -> None:
    type = data.draw(st.sampled_from(list(LATER)))
    frame = Frame(type, as_json(data.draw(spoilt(LATER[type]))))
    run = {"gadgets": [{"object": 0, **opens.gadget("openat_exit", ring_bytes=1 << 16)}], "filter": FILTER}
    take(containers, opens.elf, Frame(FrameType.RUN, as_json(run)), frame)


@pytest.mark.bpf
@pytest.mark.parametrize(
    ("type", "value"),
    [
        (FrameType.LOOK_UP, b'{"functions":null}'),
        (FrameType.RUN, b'{"gadgets":[],"filter":1}'),
        (FrameType.RUN, b'{"gadgets":[{"name":"a","object":-1}]}'),
        (FrameType.RUN, b'{"gadgets":[{"name":"a","object":0,"kind":"top"}]}'),
        (FrameType.RUN, b'{"gadgets":[{"name":"a","object":0,"kind":"recorder"}]}'),
        (FrameType.RUN, b'{"gadgets":[{"name":"a","object":0,"kind":"snapshot","sampler":"mounts"}]}'),
        (
            FrameType.RUN,
            b'{"gadgets":[{"name":"a","object":0,"sampler":"mounts","layout":{"size":9,"fields":{"a":[4,9]}}}]}',
        ),
        (FrameType.RUN, b'{"gadgets":[{"name":"a","kind":"policy","scopes":[],"hooks":[]}]}'),
        (FrameType.RUN, b"[" * 100_000),
        (FrameType.RUN, b'{"gadgets":[{"name":"a","object":' + b"9" * 4000 + b"}]}"),
        (FrameType.RUN, b'{"gadgets":[],"gadgets":[]}'),
        (FrameType.HEARTBEAT, b'{"id":NaN}'),
        (FrameType.HEARTBEAT, b'{"id":"1"}'),
    ],
)
def test_frames_that_once_caused_an_internal_error_are_refused(
    type: FrameType, value: bytes, opens: Compiled, containers: Containers
) -> None:
    take(containers, opens.elf, Frame(type, value))
