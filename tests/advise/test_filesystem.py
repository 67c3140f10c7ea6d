"""Which folders have to be volumes so that the root file system can be read-only."""

from typing import Any

import pytest

from kubectl_gadget.advise import filesystem
from kubectl_gadget.advise.uses import SeenUses
from kubectl_gadget.kube.inventory import Inventory, Mount, Pod
from tests.advise.flows import WEB


def row(path: str, **members: Any) -> dict[str, Any]:
    whose = {"namespace": WEB.namespace, "pod": WEB.name, "container": "main", "comm": "app", "error": ""}
    return {**whose, "path": path, "resolved": path, "mount": "/", "fstype": "overlay", **members}


def deed(operation: str, path: str, to: str | None = None, **members: Any) -> dict[str, Any]:
    whose = {"namespace": WEB.namespace, "pod": WEB.name, "container": "main", "comm": "app", "error": ""}
    return {**whose, "operation": operation, "path": path, "to": to, **members}


def recording(*rows: dict[str, Any], pod: Pod = WEB) -> SeenUses:
    made = SeenUses(filesystem.KIND, inventory=Inventory([pod]))
    for item in rows:
        made.add(filesystem.uses_of(item))
    return made


def writes(*rows: dict[str, Any], mounted: tuple[str, ...] = ()) -> filesystem.Writes:
    return filesystem.writes(recording(*rows).uses, mounted)


def test_a_folder_that_is_written_to_needs_a_volume_once_for_all_below_it() -> None:
    found = writes(row("/cache/a"), row("/cache/deep/b"), row("/cachet/c"), deed("rename", "/run/x/a", "/run/y/b"))
    assert found.folders == ("/cache", "/cachet", "/run/x", "/run/y")
    assert found.examples["/cache"] == ("/cache/a (app, open)", "/cache/deep/b (app, open)")


@pytest.mark.parametrize("path", ["/pid", "/etc/resolver.conf", "/usr/bin/tool"])
def test_where_the_image_has_its_own_files_no_volume_can_be(path: str) -> None:
    made = recording(row(path), row("/cache/a"))
    (document,) = filesystem.advise(made)
    (container,) = document.body["spec"]["template"]["spec"]["containers"]
    assert container == {"name": "main", "securityContext": {"readOnlyRootFilesystem": False}}
    assert "volumes" not in document.body["spec"]["template"]["spec"]
    assert any(f"{path} (app, open)" in line for line in document.comments)


def test_what_lies_on_another_mount_needs_nothing() -> None:
    assert writes(row("/data/a", mount="/data")).folders == ()
    assert writes(deed("unlink", "/data/a"), row("/data/b", mount="/data")).folders == ()
    assert writes(deed("mkdir", "/volume/a/b"), mounted=("/volume",)).folders == ()
    assert writes(deed("unlink", "/dev/shm/a"), deed("unlink", "/proc/x")).folders == ()
    assert writes(deed("unlink", "/volumes/a"), mounted=("/volume",)).folders == ("/volumes",)


def test_the_pods_volumes_are_known_from_its_description() -> None:
    pod = Pod(**{**vars(WEB), "mounts": (Mount("main", "/data"), Mount("other", "/more"))})
    (document,) = filesystem.advise(recording(deed("unlink", "/data/a"), deed("unlink", "/more/b"), pod=pod))
    spec = document.body["spec"]["template"]["spec"]
    assert [item["mountPath"] for item in spec["containers"][0]["volumeMounts"]] == ["/more"]


def test_a_folder_that_is_made_among_the_images_own_is_the_volume_itself() -> None:
    assert writes(deed("mkdir", "/cache"), deed("mkdir", "/cache/app"), row("/cache/app/x")).folders == ("/cache",)
    assert writes(deed("mkdir", "/tmp/random")).folders == ("/tmp",)


def test_failures_do_not_count_but_for_those_of_a_read_only_file_system() -> None:
    failed = {"resolved": None, "mount": None, "fstype": None}
    assert writes(row("/cache/a", error="EACCES", **failed)).folders == ()
    found = writes(row("/cache/a", error="EROFS", **failed))
    assert found.folders == ("/cache",)
    assert found.examples["/cache"] == ("/cache/a (app, open, refused)",)


def test_the_patch_has_a_volume_for_each_folder_by_names_that_kubernetes_takes() -> None:
    long = "/" + "x" * 80
    (document,) = filesystem.advise(recording(row("/Cache_1/a"), row(f"{long}/b"), row(f"{long[:-1]}y/b")))
    spec = document.body["spec"]["template"]["spec"]
    mounts = spec["containers"][0]["volumeMounts"]
    assert spec["containers"][0]["securityContext"] == {"readOnlyRootFilesystem": True}
    assert [item["mountPath"] for item in mounts] == ["/Cache_1", long, f"{long[:-1]}y"]
    names = [item["name"] for item in mounts]
    assert names[0] == "main-cache-1"
    assert len(set(names)) == 3
    assert all(len(name) <= 63 for name in names)
    assert spec["volumes"] == [{"name": name, "emptyDir": {}} for name in names]
