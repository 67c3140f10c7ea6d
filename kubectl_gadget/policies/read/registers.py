"""`argRegs` of an Override: assignments to a program's registers, written rax=0, rip=(%rsp), rsp=8%rsp.

    REGISTER=NUMBER            REGISTER=%REGISTER            REGISTER=NUMBER%REGISTER, their sum
    REGISTER=(%REGISTER), REGISTER=NUMBER(%REGISTER)         the memory at that address

All source values are those before the first assignment. Registers have the names of x86-64 or of arm64, whole or in
part (eax, w0).
"""

import re
from collections.abc import Mapping

from kubectl_gadget.policies.model import NOWHERE, Assignment, Register
from kubectl_gadget.policies.read.filter_values import need_number
from kubectl_gadget.yaml_reader import Scalar, WrongYaml

_X86 = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "", "ip")
_STACK = 19
_WHOLE = 8
MOST = 8
"""The most assignments that one action may have."""
_SPACE = re.compile(r"\s+")
_FORM = re.compile(
    r"(?P<to>\w+)=(?:(?P<number>[-+]?\w+)|(?P<offset>[-+]?\w+)?(?:%(?P<source>\w+)|\(%(?P<memory>\w+)\)))"
)


def _registers() -> Mapping[str, Register]:
    found: dict[str, Register] = {}
    for place, name in (*enumerate(_X86), (_STACK, "sp")):
        if name.startswith("r"):
            found |= {
                f"{name}{end}": Register("x86_64", place, n) for end, n in (("", 8), ("d", 4), ("w", 2), ("b", 1))
            }
        elif name:
            found |= {f"{start}{name}": Register("x86_64", place, n) for start, n in (("r", 8), ("e", 4), ("", 2))}
            found[name.replace("x", "l") if name.endswith("x") else f"{name}l"] = Register("x86_64", place, 1)
    # sp is taken by arm64's whole register, so on x86-64 only rsp and esp name the stack pointer.
    for name in ("ip", "ipl", "eip", "sp"):
        del found[name]
    for number in range(31):
        found |= {f"x{number}": Register("aarch64", number), f"w{number}": Register("aarch64", number, 4)}
    return found | {"sp": Register("aarch64", 31), "pc": Register("aarch64", 32), "lr": Register("aarch64", 30)}


REGISTERS = _registers()
_ARM64 = {"sp": ("sp",), "pc": ("pc",), "pstate": ("pstate",), "lr": ("regs", 30)}


def register_member(name: str) -> tuple[str | int, ...] | None:
    """The path in `struct pt_regs` of a whole register, by its assembler name: `rdi` is ("di",), `x0` ("regs", 0).
    None: there is no such register; the name may be that of a member."""
    found = REGISTERS.get(name)
    if name in ("orig_rax", "eflags", "rflags"):
        return ("orig_ax",) if name == "orig_rax" else ("flags",)
    if found is None or found.bytes < _WHOLE:
        return _ARM64.get(name)
    if found.machine == "aarch64":
        return _ARM64.get(name, ("regs", found.place))
    return ("sp",) if found.place == _STACK else (_X86[found.place],)


RETURNS: Mapping[str, str] = {"x86_64": "rip=(%rsp) rsp=8%rsp rax", "aarch64": "pc=%x30 x0"}
"""The assignments that make a function return at its entry, up to the register that takes the result."""
_NEXT: Mapping[str, str] = {"x86_64": "rip", "aarch64": "pc"}
"""The register with the address of the next instruction."""


def assignment(scalar: Scalar) -> Assignment:
    """Parses one element of `argRegs`. Raises WrongYaml."""
    match = _FORM.fullmatch(_SPACE.sub("", scalar.text))
    if match is None:
        raise WrongYaml(
            scalar.place, f"{scalar.text!r} is not an assignment: rax=0, rip=(%rsp), rsp=8%rsp, rbp=8(%rsp)"
        )
    to = _register(match["to"], scalar)
    if match["number"] is not None:
        return Assignment(to, "number", _number(match["number"], scalar))
    source = _register(match["source"] or match["memory"], scalar)
    if source.machine != to.machine:
        raise WrongYaml(scalar.place, f"{scalar.text!r} has registers of {to.machine} and of {source.machine}")
    number = _number(match["offset"], scalar) if match["offset"] else 0
    return Assignment(to, "memory" if match["memory"] else "sum", number, source)


def returning(machine: str, result: int) -> tuple[Assignment, ...]:
    """The assignments that make a function return `result` at its entry, on that machine."""
    written = f"{RETURNS[machine]}={result}".split()
    return tuple(assignment(Scalar(each, NOWHERE)) for each in written)


def continuing_as(machine: str, function: int) -> Assignment:
    """The assignment that makes a function continue as another, which has that number at the hook."""
    register = REGISTERS[_NEXT[machine]]
    return Assignment(register, "function", function, register)


def _register(name: str, scalar: Scalar) -> Register:
    found = REGISTERS.get(name)
    if found is None:
        raise WrongYaml(scalar.place, f"{scalar.text!r}: there is no register {name}")
    return found


def _number(text: str, scalar: Scalar) -> int:
    return need_number(Scalar(text, scalar.place), -(1 << 63), (1 << 64) - 1)
