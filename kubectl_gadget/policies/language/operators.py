"""The operators of filters: their spellings, and the test that each stands for.

The trap: the API accepts several spellings (`GT`, `GreaterThan`, `gt`), and `NotSportPriv` really is spelt that way.
"""

from collections.abc import Mapping
from pathlib import Path

from kubectl_gadget.policies.model import Test
from kubectl_gadget.yaml_files import own_data

SET_OPERATORS = ("In", "NotIn")
BINARY_OPERATORS = (*SET_OPERATORS, "Prefix", "NotPrefix", "Postfix", "NotPostfix", "Glob", "NotGlob")
"""Glob and NotGlob are an extension of ours."""

_TESTS: Mapping[str, tuple[Test, bool]] = {
    name: (test, name.startswith("Not")) for name, test in own_data(Path(__file__).with_suffix(".yaml")).items()
}
ARGUMENT_OPERATORS = tuple(_TESTS)
WITHOUT_VALUES = ("SPortPriv", "NotSPortPriv", "DPortPriv", "NotDPortPriv", "CapabilitiesGained")
_SHORT = {"eq": "Equal", "neq": "NotEqual"}
_WRITTEN = {name.lower(): name for name in _TESTS} | _SHORT


def standard_name(written: str) -> str | None:
    """The standard spelling, such as `NotSPortPriv`; None when there is no such operator."""
    return _WRITTEN.get(written.lower())


def test_of(name: str) -> tuple[Test, bool]:
    """The test of an operator on arguments, and whether it is negated."""
    return _TESTS[name]
