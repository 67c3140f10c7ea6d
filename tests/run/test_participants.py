"""Which nodes a run is about, in words; and the request of this machine's agent."""

import io

import pytest

from kubectl_gadget.run.live_run import choose_nodes
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import RunOptions


@pytest.mark.parametrize(
    ("by_default", "where"), [(False, "this machine"), (True, "this machine (no kubeconfig was found)")]
)
def test_a_run_without_a_cluster_says_why_it_is_about_this_machine(by_default: bool, where: str) -> None:
    options = RunOptions((), local=True, local_by_default=by_default)
    assert choose_nodes(options, Progress(io.StringIO())).where(1, 1) == where
