"""What a recording keeps of the cluster's objects for the names of addresses."""

from typing import Any

import pytest

from kubectl_gadget.kube.addresses import Addresses, followed
from kubectl_gadget.kube.resources import NODES, PODS
from kubectl_gadget.recording.layout import to_json
from kubectl_gadget.recording.recorded_objects import KINDS, ObjectsRecorder, ReplayedObjects

NODE: dict[str, Any] = {
    "metadata": {"name": "n1", "uid": "u1"},
    "spec": {"podCIDR": "10.1.0.0/24"},
    "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}]},
}


@pytest.mark.parametrize("may_list_all", [True, False])
def test_a_replay_claims_that_no_pod_has_an_address_only_if_the_run_could(may_list_all: bool) -> None:
    live: list[Addresses] = []
    recorder = ObjectsRecorder([followed(live.append, 0.0, "some addresses have no names")])
    follower, *others = recorder.followers()
    assert others == []
    if not may_list_all:
        follower.narrowed(PODS)
    follower.take({kind: [NODE] if kind == NODES else [] for kind in KINDS})
    changes = recorder.begin_step()
    replayed: list[Addresses] = []
    ReplayedObjects([followed(replayed.append, 0.0, "")], 1000).apply([to_json(change) for change in changes])
    kinds = {views[-1].peer_at("10.1.0.9").kind for views in (live, replayed)}
    assert kinds == {"no pod" if may_list_all else "private"}
    assert replayed[-1].peer_at("172.30.0.11").node == "n1"
