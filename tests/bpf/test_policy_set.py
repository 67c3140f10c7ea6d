"""Set: an argument of a static probe is overwritten in the program's memory, where it lies there."""

import subprocess
from pathlib import Path

import pytest

from kubectl_gadget.policies.model import Action, Argument, Hook, HookFilter, Policy, Selector, Subject, UserProbe
from tests.agent.burners import compile_c
from tests.bpf.policy_engine import in_force

pytestmark = pytest.mark.bpf
TIMES = 31
SOURCE = Path(__file__).parent / "programs" / "probed.c"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compile_c(tmp_path / "probed", SOURCE, "-O1", "-Wl,--build-id")


def setting(program: Path, name: str) -> Policy:
    selector = Selector(
        filters=(HookFilter(Subject("argument", 1), "equal", ("another text",)),), actions=(Action("Set", value=0),)
    )
    probe = UserProbe(str(program), provider="tests", name=name)
    arguments = (Argument(0, "int"), Argument(1, "string"))
    return Policy("policy", hooks=(Hook("usdt", name, probe=probe, arguments=arguments, selectors=(selector,)),))


def denied(program: Path) -> int:
    """How often the program found that it was not allowed."""
    return int(subprocess.run([program, str(TIMES)], capture_output=True, text=True, check=True).stdout)


def test_an_argument_in_memory_is_overwritten_before_the_program_reads_it_again(program: Path) -> None:
    assert denied(program) == 0
    with in_force(setting(program, "asked"), enforce=True, pid=0) as enforcer:
        assert denied(program) == TIMES
        counts = enforcer.counts()
        events = [match.place.selector.actions[0].kind for match in enforcer.matches()]
    assert (counts["set"], counts["unset"], events) == (TIMES, 0, ["Set"] * TIMES)
    assert denied(program) == 0


def test_observed_it_is_reported_and_nothing_is_overwritten(program: Path) -> None:
    with in_force(setting(program, "asked"), pid=0) as enforcer:
        assert denied(program) == 0
        assert len(enforcer.matches()) == TIMES


def test_an_argument_in_a_register_cannot_be_and_that_is_counted(program: Path) -> None:
    with in_force(setting(program, "act"), enforce=True, pid=0) as enforcer:
        assert denied(program) == 0
        counts = enforcer.counts()
    assert (counts["set"], counts["unset"]) == (0, TIMES)
