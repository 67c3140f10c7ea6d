"""The operators of filters: their spellings, and the test that each stands for.

The trap: the API accepts several spellings (`GT`, `GreaterThan`, `gt`), and `NotSportPriv` really is spelt that way.
"""

from collections.abc import Mapping

from kubectl_gadget.policies.model import Test

SET_OPERATORS = ("In", "NotIn")
BINARY_OPERATORS = (*SET_OPERATORS, "Prefix", "NotPrefix", "Postfix", "NotPostfix", "Glob", "NotGlob")
"""Glob and NotGlob are an extension of ours."""

_TESTS: Mapping[str, tuple[Test, bool]] = {
    "Equal": ("equal", False),
    "NotEqual": ("equal", True),
    "InMap": ("equal", False),
    "NotInMap": ("equal", True),
    "GreaterThan": ("greater", False),
    "GT": ("greater", False),
    "LessThan": ("less", False),
    "LT": ("less", False),
    "InRange": ("range", False),
    "NotInRange": ("range", True),
    "Mask": ("mask", False),
    "Prefix": ("prefix", False),
    "NotPrefix": ("prefix", True),
    "Postfix": ("postfix", False),
    "NotPostfix": ("postfix", True),
    "SubString": ("substring", False),
    "SubStringIgnCase": ("substring_ignore_case", False),
    "Glob": ("glob", False),
    "NotGlob": ("glob", True),
    "SameFile": ("same_file", False),
    "NotSameFile": ("same_file", True),
    "FileType": ("file_type", False),
    "NotFileType": ("file_type", True),
    "SAddr": ("source_address", False),
    "NotSAddr": ("source_address", True),
    "DAddr": ("destination_address", False),
    "NotDAddr": ("destination_address", True),
    "SPort": ("source_port", False),
    "NotSPort": ("source_port", True),
    "DPort": ("destination_port", False),
    "NotDPort": ("destination_port", True),
    "SPortPriv": ("source_port", False),
    "NotSPortPriv": ("source_port", True),
    "DPortPriv": ("destination_port", False),
    "NotDPortPriv": ("destination_port", True),
    "Protocol": ("protocol", False),
    "Family": ("family", False),
    "State": ("state", False),
    "CapabilitiesGained": ("capabilities_gained", False),
    "CelExpr": ("expression", False),
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


def binary_test(name: str) -> tuple[Test, bool]:
    """The same for an operator of BINARY_OPERATORS or SET_OPERATORS."""
    return ("equal", name == "NotIn") if name in SET_OPERATORS else _TESTS[name]
