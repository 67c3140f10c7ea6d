"""Images on nodes that agents can run in, for `status --images`."""

from typing import Any

import pytest

from kubectl_gadget.agents.node_status import Candidate, choose, fits


def node(*images: tuple[tuple[str, ...], int]) -> dict[str, Any]:
    return {"status": {"images": [{"names": list(names), "sizeBytes": size} for names, size in images]}}


@pytest.mark.parametrize(
    "name",
    [
        "docker.io/library/python:3.13-slim",
        "registry.example/team/python3.11:1",
        "python@sha256:0123",
        "ghcr.io/kubectl-gadget/agent:0.1.0",
    ],
)
def test_an_image_whose_name_says_python_3_11_or_newer_or_that_is_ours_fits(name: str) -> None:
    assert fits(name)


@pytest.mark.parametrize(
    "name",
    [
        "docker.io/library/python:3.10-slim",
        "docker.io/library/python:3.13-alpine",
        "docker.io/library/nginx:1.27",
        "ghcr.io/kubectl-gadget/agent:0.1.0-bcc",
        "",
    ],
)
def test_older_pythons_musl_and_other_images_do_not_fit(name: str) -> None:
    assert not fits(name)


def test_images_on_most_nodes_come_first_then_ours_then_small_ones() -> None:
    ours, large, small = "ghcr.io/kubectl-gadget/agent:0.1.0", "python:3.13", "python:3.13-slim"
    everywhere = "registry.example/python:3.12"
    both = (("registry.example/python@sha256:0123", everywhere), 50)
    found = choose([node(((large,), 900), both), node(((small,), 100), ((ours,), 500), both), {"status": {}}])
    assert found == [
        Candidate(everywhere, 2, 50, False),
        Candidate(ours, 1, 500, True),
        Candidate(small, 1, 100, False),
        Candidate(large, 1, 900, False),
    ]


def test_an_image_without_a_tag_is_named_by_its_digest() -> None:
    assert [one.image for one in choose([node((("python@sha256:0123",), 1))])] == ["python@sha256:0123"]
