"""New values of registers, as they are written."""

import pytest

from kubectl_gadget.policies.model import NOWHERE, Assignment, Register
from kubectl_gadget.policies.read.values import assignment, returning
from kubectl_gadget.yaml_reader import Scalar, WrongYaml

RAX, RBP, RSP = Register("x86_64", 10), Register("x86_64", 4), Register("x86_64", 19)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rax=010", Assignment(RAX, "number", 8)),
        ("rax=-1", Assignment(RAX, "number", -1)),
        ("rax=0xffffffffffffffff", Assignment(RAX, "number", (1 << 64) - 1)),
        ("rsp = %rax", Assignment(RSP, "sum", 0, RAX)),
        ("rbp=128%rax", Assignment(RBP, "sum", 128, RAX)),
        ("rbp=(%rsp)", Assignment(RBP, "memory", 0, RSP)),
        ("rsp=-1372(%rbp)", Assignment(RSP, "memory", -1372, RBP)),
        ("al=%bpl", Assignment(Register("x86_64", 10, 1), "sum", 0, Register("x86_64", 4, 1))),
        ("eax=%r8d", Assignment(Register("x86_64", 10, 4), "sum", 0, Register("x86_64", 9, 4))),
        ("w0=3", Assignment(Register("aarch64", 0, 4), "number", 3)),
        ("pc=%lr", Assignment(Register("aarch64", 32), "sum", 0, Register("aarch64", 30))),
    ],
)
def test_what_is_written_is_understood(text: str, found: Assignment) -> None:
    assert assignment(Scalar(text, NOWHERE)) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rax=", "is not an assignment"),
        ("rax=1=2", "is not an assignment"),
        ("rax=abc", "is not a number"),
        ("rbp=0x20(%rsp", "is not an assignment"),
        ("rsp=8%notareg", "there is no register notareg"),
        ("ip=1", "there is no register ip"),
        ("rax=%x0", "has registers of x86_64 and of aarch64"),
        ("rax=0x10000000000000000", "out of range"),
    ],
)
def test_a_wrong_assignment_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(WrongYaml, match=why):
        assignment(Scalar(text, NOWHERE))


def test_a_function_returns_by_the_registers_of_each_machine() -> None:
    assert [one.to.place for one in returning("x86_64", -1)] == [16, 19, 10]
    assert [one.to.place for one in returning("aarch64", -1)] == [32, 0]
    assert returning("x86_64", -1)[-1] == Assignment(RAX, "number", -1)
