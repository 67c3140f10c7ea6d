"""Each rule finds what it is for, in real containers of the running kernel, and not in a healthy twin."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.kernel import features
from kubectl_gadget.demo.runc import cgroup2_mount
from kubectl_gadget.diagnose.rules import load, own_files
from tests.conftest import why_no_containers
from tests.diagnose.scenarios import API, ELSEWHERE, HEALTHY, PROGRAMS, Scenario
from tests.diagnose.staged import Told, assert_named, assert_not_blamed, staged
from tests.vm import modules

SCENARIOS = (*PROGRAMS, *API)
_SLOW_RUNS, _FAST_RUNS = 2, 4
"""Runs with 30 to 40 pods each: more disturb each other on a machine with two processors. In slow ones, causes show
only when snapshots are taken again; healthy programs are beside those, since they are looked at for the longest."""
_SECONDS = "120s"
"""A run that has not noticed all that is expected ends then."""
_SLOW, _FAST = ([each for each in SCENARIOS if each.is_slow is kind and not each.needs] for kind in (True, False))
Group = tuple[Sequence[Scenario], Mapping[str, tuple[str, str]]]
GROUPS: list[Group] = [
    *((_SLOW[at::_SLOW_RUNS], dict(list(HEALTHY.items())[at::_SLOW_RUNS])) for at in range(_SLOW_RUNS)),
    *((_FAST[at::_FAST_RUNS], {}) for at in range(_FAST_RUNS)),
]
BY_KERNEL = [each for each in SCENARIOS if each.needs]
"""In a run of their own, so that a virtual machine can run them alone, with a kernel that has what others lack."""
real = pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers()))


@pytest.fixture(scope="module")
def run(
    request: pytest.FixtureRequest, catalogue_built: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    """One run over the scenarios of a group."""
    del catalogue_built
    scenarios, healthy = GROUPS[request.param]
    with staged(scenarios, healthy, tmp_path_factory.mktemp("run"), "--timeout", _SECONDS) as told:
        yield told


@pytest.fixture(scope="module")
def run_by_kernel(catalogue_built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """One run over what this kernel has of `BY_KERNEL`."""
    del catalogue_built
    modules.load("veth", "bridge")
    possible = [each for each in BY_KERNEL if is_possible(each)]
    with staged(possible, {}, tmp_path_factory.mktemp("run"), "--timeout", _SECONDS) as told:
        yield told


def is_possible(scenario: Scenario) -> bool:
    """True if this kernel has what the scenario, one of `BY_KERNEL`, needs."""
    if scenario.needs == "limits of cgroup v2":
        return {"cpu", "memory"} <= set((cgroup2_mount() / "cgroup.controllers").read_text().split())
    return scenario.needs == ("no fexit" if features.lacking("fexit") else "fexit")


def in_groups(place: int, name: str) -> pytest.MarkDecorator:
    """Parametrize a test by the groups and by what they have."""
    found: list[Any] = []
    for number, group in enumerate(GROUPS):
        for each in group[place]:
            found.append(pytest.param(number, each, id=each.title if isinstance(each, Scenario) else each))
    return pytest.mark.parametrize(("run", name), found, indirect=["run"], scope="module")


@pytest.mark.bpf
@real
@in_groups(0, "scenario")
def test_the_cause_is_named_and_its_healthy_twin_is_not_blamed(run: Told, scenario: Scenario) -> None:
    assert_named(run, scenario)
    assert_not_blamed(run, scenario)


@pytest.mark.bpf
@real
@pytest.mark.parametrize("scenario", BY_KERNEL, ids=[each.title for each in BY_KERNEL])
def test_causes_that_only_some_kernels_show(scenario: Scenario, request: pytest.FixtureRequest) -> None:
    if not is_possible(scenario):
        pytest.skip(f"it needs a kernel with {scenario.needs}")
    run: Told = request.getfixturevalue("run_by_kernel")
    assert_named(run, scenario)
    assert_not_blamed(run, scenario)


@pytest.mark.bpf
@real
@in_groups(1, "name")
def test_nothing_is_said_of_a_healthy_busy_program(run: Told, name: str) -> None:
    pods = f"healthy-{name}", f"healthy-{name}-server"
    found = [each["title"] for pod in pods for each, _ in run.about(pod) if each["severity"] != "note"]
    assert found == [], run.errors


def test_each_rule_has_a_scenario_or_a_reason_why_not() -> None:
    proven = {each.rule for each in SCENARIOS}
    assert {rule.name for rule in load(own_files())} == proven | ELSEWHERE.keys()
    assert not proven & ELSEWHERE.keys()
    assert len({each.title for each in SCENARIOS}) == len(SCENARIOS)
