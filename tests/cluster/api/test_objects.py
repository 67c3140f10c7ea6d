"""What is followed in a thread: whatever ends it is told, and never a traceback on the terminal."""

import pytest

from kubectl_gadget.cluster.api import kubeconfig, objects
from kubectl_gadget.cluster.api.resources import PODS, Resource
from kubectl_gadget.cluster.options import KubeOptions
from kubectl_gadget.errors import ClusterError, GadgetError, InternalError


@pytest.mark.parametrize(
    ("error", "told"), [(ClusterError("refused"), ClusterError), (ValueError("a fault"), InternalError)]
)
def test_whatever_ends_it_is_told(
    error: Exception, told: type[GadgetError], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(_: KubeOptions) -> None:
        raise error

    monkeypatch.setattr(kubeconfig, "load", fails)
    found: list[tuple[Resource | None, GadgetError]] = []
    with objects.following(
        KubeOptions(), (PODS,), lambda _: None, lambda *failed: found.append(failed), print, first_seconds=10
    ):
        pass
    ((kind, said),) = found
    assert kind is None
    assert isinstance(said, told)
    assert capfd.readouterr() == ("", "")
