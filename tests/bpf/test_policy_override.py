"""Override at a program's function, in this kernel: what it returns, what it is given, or which runs, are others.

Not every 6.18 lets that happen; Debian's 7.3 does (tests/vm/kernels.py, trixie-backports).

The program calls its function as often as it is told, adds up what it returns, -number - 6, and exits with 1 when the
sum is more than 0.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.agent.symbols.elf_functions import function_offsets, offset_address
from kubectl_gadget.errors import UsageError
from kubectl_gadget.observe.decoders import event
from kubectl_gadget.policies.compiler.policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.agent.burners import compile_c
from tests.bpf.policy_engine import Enforcer, in_force

pytestmark = pytest.mark.bpf
SOURCE = Path(__file__).parent / "programs" / "probed.c"
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: overridden}
spec:
  uprobes:
  - path: %s
    symbols: [act]
    args: [{index: 0, type: int}]
    selectors: [{matchArgs: [{index: 0, operator: Equal, values: ["1"]}], matchActions: [{action: Override, %s}]}]
%s
"""
TIMES = 3
"""So the sum is -6 - 7 - 8, and 14 in the place of -7 makes 0 of it."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compile_c(tmp_path / "probed", SOURCE, "-O1")


@contextmanager
def overriding(program: Path, action: str, enforce: bool = True) -> Iterator[Enforcer]:
    (policy,) = parse_policies([("policy.yaml", POLICY % (program, action, ""))], "default")
    with in_force(policy, pid=0, enforce=enforce) as enforcer:
        yield enforcer


def result_of(program: Path) -> int:
    return subprocess.run([program, str(TIMES)], check=False).returncode


@pytest.mark.parametrize(("error", "result"), [(14, 0), (15, 1)])
def test_a_function_returns_what_the_policy_says(error: int, result: int, program: Path) -> None:
    with overriding(program, f"argError: {error}") as enforcer:
        assert enforcer.hooks == [f"uprobe/{program}:act"]
        assert result_of(program) == result
        (match,) = enforcer.matches()
    told = event(match, 0)
    assert (told.blocked, told.verdict, told.args[0].value) == (True, str(error), 1)


@pytest.mark.parametrize(("number", "result"), [(-20, 0), (-21, 1)])
def test_an_argument_is_replaced_by_argregs(number: int, result: int, program: Path) -> None:
    register = "rdi" if os.uname().machine == "x86_64" else "x0"
    with overriding(program, f"argRegs: ['{register}={number}']") as enforcer:
        assert result_of(program) == result
        (match,) = enforcer.matches()
    assert (event(match, 0).blocked, event(match, 0).verdict) == (False, "registers")


def test_what_is_not_enforced_is_reported_alone(program: Path) -> None:
    with overriding(program, "argError: 1000", enforce=False) as enforcer:
        assert result_of(program) == 0
        (match,) = enforcer.matches()
    assert not match.found.verdict


RETURNS = """
  - path: %s
    symbols: [act]
    return: true
    returnArg: {type: int}
"""


def test_a_function_whose_return_is_examined_is_not_overridden(program: Path) -> None:
    (policy,) = parse_policies([("policy.yaml", POLICY % (program, "argError: 1", RETURNS % program))], "default")
    with pytest.raises(UsageError, match="would corrupt its stack"):
        CompiledPolicies([policy], CompilerOptions(enforce=True))


@pytest.fixture(params=["argNewSymbol", "argNewAddr", "argNewOffset"])
def other_function(request: pytest.FixtureRequest, program: Path) -> str:
    offset = function_offsets(str(program), ["other_function"])["other_function"]
    address = offset_address(str(program), offset)
    values = {"argNewSymbol": "other_function", "argNewAddr": hex(address or 0), "argNewOffset": str(offset)}
    return f"{request.param}: {values[request.param]}"


def test_another_function_runs_in_its_place(program: Path, other_function: str) -> None:
    with overriding(program, other_function) as enforcer:
        assert result_of(program) == 1
        (match,) = enforcer.matches()
    assert (event(match, 0).blocked, event(match, 0).verdict) == (True, "function")
    assert result_of(program) == 0


def test_where_the_other_function_is_not_there_nothing_is_overridden(program: Path) -> None:
    with overriding(program, "argNewSymbol: no_act") as enforcer:
        assert result_of(program) == 0
        warnings = enforcer.warnings()
    assert any("no such function (symbol no_act), so no probe is set in it" in text for text in warnings)


def test_an_override_names_one_function(program: Path) -> None:
    with pytest.raises(UsageError, match="only one of argNewSymbol, argNewAddr and argNewOffset"):
        parse_policies([("policy.yaml", POLICY % (program, "argNewSymbol: a, argNewAddr: 8", ""))], "default")
