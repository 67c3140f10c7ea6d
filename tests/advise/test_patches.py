"""Parts of workloads, for kubectl patch."""

import pytest

from kubectl_gadget.advise.documents import ContainerPatch, patch
from kubectl_gadget.kube.inventory import Workload


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("Deployment", "To apply this part, saved as FILE (--directory DIR): kubectl patch deployment web -n shop"),
        ("Job", "A Job's pods cannot be changed"),
        ("Pod", "A pod's security context cannot be changed"),
    ],
)
def test_how_to_apply_a_patch_is_the_end_of_its_comments(kind: str, hint: str) -> None:
    found = patch(Workload("shop", kind, "web"), [ContainerPatch("main")], iter(["why"]), "file")
    why, last = found.comments
    assert (why, found.name) == ("why", "file")
    assert last.startswith(hint)
