"""The results of pytest in a virtual machine, from JUnit's XML, and their transfer to the end of pytest's output
here."""

from collections.abc import Callable
from xml.etree import ElementTree

_SLOWEST = 5
"""Number of slowest tests that are listed with their time."""
AT_THE_END = "printed at the end"
"""A property of a test; tests/conftest.py prints its value below the summary."""


def results(xml: str, where: str, record_property: Callable[[str, object], None]) -> dict[str, int]:
    """The numbers of "tests", "failures", "errors" and "skipped". They are printed at the end of pytest's output with
    the slowest tests, the reason of each skip, and the tests that failed. Raises ParseError."""
    suite = ElementTree.fromstring(xml).find("testsuite")
    assert suite is not None, xml
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    lines = [f"{where}: " + ", ".join(f"{number} {name}" for name, number in count.items())]
    slowest = sorted(suite.iter("testcase"), key=_seconds, reverse=True)[:_SLOWEST]
    lines[0] += f", {sum(map(_seconds, suite.iter('testcase'))):.0f} s"
    lines += [f"{_seconds(case):.0f} s {case.get('classname')} {case.get('name')}" for case in slowest]
    for case in suite.iter("testcase"):
        lines += [f"SKIPPED {case.get('name')}: {skipped.get('message')}" for skipped in case.iter("skipped")]
        lines += [f"FAILED {case.get('name')}" for kind in ("failure", "error") for _ in case.iter(kind)]
    record_property(AT_THE_END, "\n".join(lines))
    return count


def _seconds(case: ElementTree.Element) -> float:
    return float(case.get("time", 0))
