"""Flags described by a gadget's YAML: one for each of its parameters, with the reader for its type.

The trap: a number must fit the BPF program's variable that it is written to, so the variable's size limits its range.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from kubectl_gadget.cli.flags.flag_declaration import Switch, Text, TypedOnly, flag
from kubectl_gadget.cli.values import amounts, gadget_values, object_names, word_lists
from kubectl_gadget.gadgets.schema import Gadget, Parameter

_PREFIX = "parameter_"
_TYPED_ONLY = {
    **dict.fromkeys(("pid", "descendants", "function", "receiver-pid"), TypedOnly.SELECTION),
    "target": TypedOnly.ACTION,
}
"""Why settings cannot set a parameter, by name."""
_TEXT_TYPES: dict[str, tuple[str, Callable[[str], str]]] = {
    "syscalls": ("LIST", gadget_values.syscalls),
    "functions": ("LIST", object_names.functions),
    "address": ("IP", gadget_values.ip),
    "pcap": ("EXPRESSION", gadget_values.pcap),
    "paths": ("PATHS", gadget_values.paths),
}
"""The value's name in help and its reader, by type."""


def parameter_flags(gadget: Gadget) -> dict[str, object]:
    """The flags of all parameters, by name, as taken by binding.bind()."""
    panel = f"Flags of {' '.join(gadget.command)}"
    return {parameter_key(item): _parameter_flag(item, gadget, panel) for item in gadget.parameters}


def parameter_key(parameter: Parameter) -> str:
    """The name of the parameter's flag among those of the command."""
    return _PREFIX + parameter.name.replace("-", "_")


def parameter_values(given: dict[str, object]) -> dict[str, object]:
    """Those of the given values that belong to parameters, by Parameter.name."""
    return {
        name.removeprefix(_PREFIX).replace("_", "-"): value for name, value in given.items() if name.startswith(_PREFIX)
    }


def functions_parameter(gadget: Gadget) -> Parameter | None:
    """The parameter that selects the functions to follow."""
    return next((item for item in gadget.parameters if item.type == "functions"), None)


def _parameter_flag(parameter: Parameter, gadget: Gadget, panel: str) -> object:
    metavar, reader, choices = _value_of(parameter, gadget)
    # --no-purged is the name of one, and has a negative, too.
    negative = f"/--no-{parameter.name}" if parameter.type == "bool" else ""
    option = flag(panel, f"--{parameter.name}{negative} {metavar or ''}".strip(), _help(parameter), choices)
    declared: object = Annotated[Switch, option] if reader is None else Annotated[Text, option, reader]
    why = _TYPED_ONLY.get(parameter.name)
    return Annotated[declared, why] if why else declared


def _help(parameter: Parameter) -> str:
    described = parameter.description[:1].upper() + parameter.description[1:]
    default = parameter.default
    if default in (None, False, ""):
        return described
    shown = amounts.duration_text(int(default), parameter.unit) if parameter.unit else default
    return f"{described} (default: {shown})"


Choices = Sequence[str] | Callable[[], Sequence[str]]


def _value_of(parameter: Parameter, gadget: Gadget) -> tuple[str | None, Callable[[str], object] | None, Choices]:
    """The value's name in help, None for a switch; its reader; its candidates for completion."""
    if parameter.type == "bool":
        return None, None, ()
    if parameter.type in _TEXT_TYPES:
        return *_TEXT_TYPES[parameter.type], ()
    if parameter.words:
        return "WORDS", gadget_values.words_of(parameter.words), ("all", *parameter.words)
    if parameter.choices:
        return "WORD", word_lists.one_of(*parameter.choices), parameter.choices
    words = [choice.when[1] for choice in gadget.agent.programs if choice.when and choice.when[0] == parameter.name]
    if words:
        return "NAMES", gadget_values.words_of(words), ("all", *words)
    if parameter.names:
        return "NAME", gadget_values.number_of(parameter.names), partial(gadget_values.names_of, parameter.names)
    place = gadget.agent.globals.get(parameter.variable)
    if parameter.type == "duration":
        read = amounts.duration_in(parameter.unit, place.size if place else 4)
        return "TIME", _bounded(read, parameter, lambda value: amounts.duration_text(value, parameter.unit)), ()
    if parameter.type == "int":
        read = gadget_values.integer_of(place.size, signed=place.signed) if place else gadget_values.integer_of(8)
        return "N", _bounded(read, parameter, str), ()
    return "TEXT", gadget_values.text_of(place.size if place else 256), ()


def _bounded(read: Callable[[str], int], parameter: Parameter, spell: Callable[[int], str]) -> Callable[[str], int]:
    """The reader, which then also rejects what is beyond the parameter's bounds."""
    lowest, highest = parameter.minimum, parameter.maximum
    if lowest is None and highest is None:
        return read

    def reader(text: str) -> int:
        value = read(text)
        if lowest is not None and value < lowest:
            raise ValueError(f"must be at least {spell(lowest)}")
        if highest is not None and value > highest:
            raise ValueError(f"must be at most {spell(highest)}")
        return value

    return reader
