"""`spec.lists`: named lists of system calls, functions or values, and references of the form `list:NAME`.

The trap: the list's `type` determines whether it holds system calls, not the hook that uses it.
"""

from dataclasses import dataclass
from typing import Literal

from kubectl_gadget.policies.language.linux_names import is_known, system_call, system_calls
from kubectl_gadget.policies.language.path_patterns import check_pattern
from kubectl_gadget.policies.model import Generated, SystemCall
from kubectl_gadget.similar_names import did_you_mean
from kubectl_gadget.yaml_reader import Part, Problems, Scalar, WrongYaml

LIST = "list:"


@dataclass(frozen=True)
class ListOf:
    """One list."""

    name: str
    values: tuple[Scalar, ...] = ()
    system_calls: bool = False
    generated: Generated | None = None


class Lists:
    """The lists of a policy."""

    def __init__(self, by_name: dict[str, ListOf]) -> None:
        self._by_name = by_name

    def get(self, scalar: Scalar) -> ListOf | None:
        """The list that `list:NAME` refers to; None for any other text. Raises WrongYaml when there is no such
        list."""
        if not scalar.text.startswith(LIST):
            return None
        name = scalar.text.removeprefix(LIST)
        if name not in self._by_name:
            raise WrongYaml(scalar.place, f"there is no list {name!r} in spec.lists{did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    def expand(self, scalars: list[Scalar]) -> list[Scalar]:
        """The values, with references replaced by the values of the list; these keep the place of the reference."""
        found: list[Scalar] = []
        for scalar in scalars:
            values = self.get(scalar)
            if values is None:
                found.append(scalar)
            elif values.generated:
                raise WrongYaml(scalar.place, f"{scalar.text} is generated on the node, so only `call` can use it")
            else:
                found += [Scalar(value.text, scalar.place) for value in values.values]
        return found


def read_lists(spec: Part, problems: Problems) -> Lists:
    """All lists of a policy; errors are added to `problems`."""
    found: dict[str, ListOf] = {}
    for part in spec.parts("lists"):
        name = part.text("name")
        if name in found:
            problems.add(part.at("name"), f"the list {name!r} is defined twice")
        found[name] = ListOf(name)  # if it is wrong, references to it are not
        with problems.collecting():
            found[name] = _list(part, name)
    return Lists(found)


def need_system_call(scalar: Scalar) -> SystemCall:
    """The system call of that name. Raises WrongYaml, which suggests similar names, when there is none."""
    call = system_call(scalar.text)
    if call is None:
        hint = f"; is it sys_{scalar.text}?" if scalar.text in system_calls() else ", which begins with sys_"
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a name of a system call{hint}")
    if not is_known(call):
        raise WrongYaml(scalar.place, no_system_call(scalar, call))
    return call


def no_system_call(scalar: Scalar, call: SystemCall, hint: str = "") -> str:
    """The message that there is no such system call: the hint, then similar names in the spelling of the policy."""
    abi = f"{call.abi}/" if call.abi else ""
    near = did_you_mean(f"{abi}sys_{call.name}", [f"{abi}sys_{name}" for name in system_calls(call.abi)])
    return f"there is no system call {scalar.text}{hint}{near}"


def _list(part: Part, name: str) -> ListOf:
    kind = part.text("type")
    values = part.scalars("values")
    if kind in ("generated_syscalls", "generated_ftrace"):
        if values:
            part.fail("values", f"are generated on the node for a list of type {kind}")
        pattern = part.text("pattern")
        if (kind == "generated_ftrace") != bool(pattern):
            part.fail("pattern", "is missing" if kind == "generated_ftrace" else f"is not for a list of type {kind}")
        if pattern:
            check_pattern(part.scalar("pattern"))
        generated: Literal["generated_syscalls", "generated_ftrace"] = (
            "generated_syscalls" if kind == "generated_syscalls" else "generated_ftrace"
        )
        return ListOf(name, (), kind == "generated_syscalls", Generated(name, generated, pattern))
    if "pattern" in part:
        part.fail("pattern", "is only for a list of type generated_ftrace")
    if not values:
        part.fail("values", "is missing")
    if kind == "syscalls":
        for value in values:
            need_system_call(value)
    return ListOf(name, tuple(values), kind == "syscalls")
