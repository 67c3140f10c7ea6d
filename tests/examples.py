"""How many examples a test of hypothesis takes."""

from hypothesis import settings

_USUAL = 100
"""of hypothesis itself"""


def examples(number: int) -> int:
    """For tests that want another number than the usual one: `make check` takes a fifth, as of all (tests/conftest.py),
    and virtual machines take less still."""
    return max(1, number * min(settings.default.max_examples, _USUAL) // _USUAL)
