"""Containers from cgroup names, configurations and command lines: known forms, and hostile ones."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.agent.containers import identity
from kubectl_gadget.agent.containers.identity import ContainerIdentity, RuntimeCommand
from kubectl_gadget.rows.containers import SANDBOX

ID = "0123456789abcdef" * 4
UID = "f5870ef2-8ba0-45d3-8342-39407b32a322"
UNNAMED = ContainerIdentity(ID, 4711, "", "", "", ID[:12], "", "", "container")

OF_POD = UNNAMED._replace(pod_uid=UID)
"""Its cgroup's path has the pod's UID."""
CONTAINERD_NOTES = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-name": "xwing",
    "io.kubernetes.cri.sandbox-uid": UID,
    "io.kubernetes.cri.container-name": "spaceship",
    "io.kubernetes.cri.image-name": "docker.io/library/busybox:1.37",
}
CRIO_NOTES = {
    "io.kubernetes.cri-o.ContainerType": "container",
    "io.kubernetes.cri-o.ImageName": "quay.io/a/b:1",
    "io.kubernetes.pod.namespace": "empire",
    "io.kubernetes.pod.name": "deathstar",
    "io.kubernetes.pod.uid": UID,
    "io.kubernetes.container.name": "laser",
}
DOCKER_LABELS = {
    "io.kubernetes.pod.namespace": "default",
    "io.kubernetes.pod.name": "xwing",
    "io.kubernetes.pod.uid": UID,
    "io.kubernetes.container.name": "POD",
    "io.kubernetes.docker.type": "podsandbox",
}
OTHER_UID = UID.replace("f", "0")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ID, ("", ID)),
        (f"cri-containerd-{ID}.scope", ("containerd", ID)),
        (f"crio-{ID}.scope", ("cri-o", ID)),
        (f"crio-{ID}", ("cri-o", ID)),
        (f"libpod_parent/{ID}/libpod-{ID}", ("podman", ID)),
        (f"libpod_parent/{ID}", None),
        (f"docker-{ID}.scope", ("docker", ID)),
        (f"libpod-{ID}.scope", ("podman", ID)),
        (f"nerdctl-{ID}.scope", ("containerd", ID)),
        ("runc-web-1.scope", ("runc", "web-1")),
        (f"crio-conmon-{ID}.scope", None),
        (f"libpod-conmon-{ID}.scope", None),
        (f"conmon-{ID}", None),
        ("kubepods.slice", None),
        ("kubepods-burstable-podf5870ef2_8ba0_45d3_8342_39407b32a322.slice", None),
        (f"pod{UID}", None),
        ("init.scope", None),
        (ID[:-1], None),
        (ID + "0", None),
        (ID.upper(), None),
        ("", None),
    ],
)
def test_a_cgroups_name_says_which_container_it_is(name: str, expected: tuple[str, str] | None) -> None:
    assert identity.container_id(name) == expected


@pytest.mark.parametrize(
    "path",
    [
        f"kubepods/burstable/pod{UID}/{ID}",
        f"kubepods/pod{UID}",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice/x.scope",
        f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice",
        f"docker/{ID}/kubelet/kubepods/besteffort/pod{UID}/{ID}",
        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
        f"kubelet-kubepods-besteffort-pod{UID.replace('-', '_')}.slice/cri-containerd-{ID}.scope",
    ],
)
def test_a_cgroup_path_says_which_pod_it_is(path: str) -> None:
    assert identity.pod_uid(path) == UID


@pytest.mark.parametrize("path", ["", "system.slice/pods.service", "user.slice", f"docker/{ID}"])
def test_a_path_outside_of_pods_says_no_pod(path: str) -> None:
    assert identity.pod_uid(path) == ""


def with_notes(notes: object, unnamed: ContainerIdentity = UNNAMED, by_crio: bool = False) -> ContainerIdentity | None:
    return identity.named_by_config(unnamed, {"annotations": notes}, by_crio)


@pytest.mark.parametrize("unnamed", [UNNAMED, OF_POD])
def test_containerds_annotations_name_a_container(unnamed: ContainerIdentity) -> None:
    assert with_notes(CONTAINERD_NOTES, unnamed) == ContainerIdentity(
        ID, 4711, "default", "xwing", UID, "spaceship", "docker.io/library/busybox:1.37", "containerd", "container"
    )


def test_a_sandbox_has_a_name_that_no_container_can_have() -> None:
    prefix = "io.kubernetes.cri."
    containerd = {
        prefix + "container-type": "sandbox",
        prefix + "sandbox-namespace": "default",
        prefix + "sandbox-name": "xwing",
        prefix + "sandbox-uid": UID,
        prefix + "podsandbox.image-name": "registry.k8s.io/pause:3.10",
    }
    crio = {
        "io.kubernetes.cri-o.ContainerType": "sandbox",
        "io.kubernetes.cri-o.Image": "registry.k8s.io/pause:3.10",
        "io.kubernetes.pod.namespace": "default",
        "io.kubernetes.pod.name": "xwing",
        "io.kubernetes.pod.uid": UID,
    }
    for notes, runtime in ((containerd, "containerd"), (crio, "cri-o")):
        assert with_notes(notes, by_crio=runtime == "cri-o") == ContainerIdentity(
            ID, 4711, "default", "xwing", UID, "POD", "registry.k8s.io/pause:3.10", runtime, "sandbox"
        )
    assert identity.SANDBOX == SANDBOX


@pytest.mark.parametrize("unnamed", [UNNAMED, OF_POD])
def test_crios_annotations_name_a_container(unnamed: ContainerIdentity) -> None:
    assert with_notes(CRIO_NOTES, unnamed, by_crio=True) == ContainerIdentity(
        ID, 4711, "empire", "deathstar", UID, "laser", "quay.io/a/b:1", "cri-o", "container"
    )


@pytest.mark.parametrize(("notes", "by_crio"), [(CONTAINERD_NOTES, False), (CRIO_NOTES, True)])
def test_names_of_another_pod_than_the_cgroups_are_refused(notes: dict[str, str], by_crio: bool) -> None:
    assert with_notes(notes, UNNAMED._replace(pod_uid=OTHER_UID), by_crio) is None


def test_only_the_annotations_of_the_runtime_that_wrote_the_file_count() -> None:
    """CRI-O copies the annotations of pods, which may have any name."""
    both = CONTAINERD_NOTES | CRIO_NOTES
    crio, containerd = with_notes(both, OF_POD, by_crio=True), with_notes(both, OF_POD)
    assert crio
    assert containerd
    assert (crio.namespace, containerd.namespace) == ("empire", "default")
    assert with_notes(CONTAINERD_NOTES, OF_POD, by_crio=True) == OF_POD


def test_annotations_of_an_image_do_not_name_podmans_container() -> None:
    podman = UNNAMED._replace(runtime="podman")
    assert with_notes(CRIO_NOTES, podman, by_crio=True) == podman
    assert with_notes(CRIO_NOTES, podman) == podman


def test_labels_of_an_image_do_not_name_dockers_container() -> None:
    for unnamed in (UNNAMED, UNNAMED._replace(pod_uid=OTHER_UID)):
        named = identity.named_by_docker(unnamed, {"Name": "/web", "Config": {"Labels": DOCKER_LABELS}})
        assert (named.namespace, named.pod, named.pod_uid) == ("", "", unnamed.pod_uid)


def test_dockers_state_names_a_container() -> None:
    named = identity.named_by_docker(UNNAMED, {"Name": "/web", "Config": {"Image": "nginx"}})
    assert (named.container, named.image, named.runtime, named.pod) == ("web", "nginx", "docker", "")


def test_composes_project_and_service_become_namespace_and_pod() -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    named = identity.named_by_docker(UNNAMED, {"Name": "/shop-web-1", "Config": {"Labels": labels}})
    assert (named.namespace, named.pod, named.container, named.pod_uid) == (
        "shop",
        "web",
        "shop-web-1",
        UNNAMED.pod_uid,
    )


def test_dockers_labels_name_a_pod() -> None:
    named = identity.named_by_docker(OF_POD, {"Name": "/k8s_POD_xwing", "Config": {"Labels": DOCKER_LABELS}})
    assert (named.namespace, named.pod, named.container, named.kind) == ("default", "xwing", "POD", "sandbox")


def test_podmans_listing_names_a_container() -> None:
    listing = [{"id": "other", "names": ["no"]}, {"id": ID, "names": ["db"]}]
    assert identity.named_by_storage(UNNAMED, listing).container == "db"
    assert identity.named_by_storage(UNNAMED, [{"id": "other"}]) == UNNAMED


def test_a_configuration_without_annotations_changes_nothing() -> None:
    assert identity.named_by_config(UNNAMED, {"ociVersion": "1.1.0"}, by_crio=False) == UNNAMED


@given(json_values)
def test_no_configuration_breaks_naming(value: Any) -> None:
    for name in (identity.named_by_docker, identity.named_by_storage):
        assert isinstance(name(UNNAMED, value), ContainerIdentity)
    for by_crio in (False, True):
        assert isinstance(identity.named_by_config(UNNAMED, value, by_crio), ContainerIdentity)


@given(st.dictionaries(st.sampled_from(["Name", "Config", "annotations", "id", "names"]), json_values))
def test_no_member_of_the_wrong_type_breaks_naming(value: dict[str, Any]) -> None:
    found = identity.named_by_config(UNNAMED, value, by_crio=False)
    assert found
    named = identity.named_by_docker(found, value)
    assert all(isinstance(text, str) for text in named._replace(cgroup=0)._asdict().values() if text != 0)
    identity.named_by_storage(UNNAMED, [value])


@given(st.text())
def test_a_name_that_is_kept_can_be_encoded_and_is_not_too_long(name: str) -> None:
    notes = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-name": name * 50}
    named = with_notes(notes)
    assert named
    assert len(named.pod) <= 1024
    named.pod.encode()


def test_a_lone_surrogate_is_replaced() -> None:
    notes = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-name": "a\ud800b"}
    named = with_notes(notes)
    assert named
    assert named.pod == "a?b"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"/usr/bin/runc --root /run/x --log l create --bundle /b --pid-file p {ID}", RuntimeCommand("runc", ID, "/b")),
        ("runc run web", RuntimeCommand("runc", "web", None)),
        ("crun --systemd-cgroup run --bundle=/b web", RuntimeCommand("crun", "web", "/b")),
        ("runc run -b ../b web", RuntimeCommand("runc", "web", "../b")),
        ("runc restore web", RuntimeCommand("runc", "web", None)),
        ("runc init", None),
        ("runc exec web sh", None),
        ("runc run --help", None),
        ("runc run ../../etc", None),
        ("runc run ..", None),
        ("bash create x", None),
        ("", None),
    ],
)
def test_a_runtimes_command_line_says_what_it_makes(line: str, expected: RuntimeCommand | None) -> None:
    assert identity.command(line.split(" ") if line else []) == expected


@given(st.lists(st.sampled_from(["runc", "run", "create", "--bundle", "-b", "--bundle=", "", "x", "/", "\0"])))
def test_no_command_line_breaks_reading_it(arguments: list[str]) -> None:
    told = identity.command(arguments)
    assert told is None or "/" not in told.id


def test_a_cgroup_belongs_to_the_configuration_that_specifies_it() -> None:
    config = {"linux": {"cgroupsPath": "/my/web"}}
    assert identity.cgroup_belongs("node/my/web", "x", config)
    assert not identity.cgroup_belongs("node/my", "x", config)
    assert identity.cgroup_belongs("node/web", "web", {})
    assert not identity.cgroup_belongs("node", "web", {})
