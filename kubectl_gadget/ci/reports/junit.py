"""JUnit XML: one testcase for each check, one for the command, and one for whether everything was seen.

An inconclusive check is an `<error>`, a finding is a `<failure>`. The trap: XML 1.0 cannot hold most control
characters, not even escaped, so texts are made printable first.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator

from kubectl_gadget.ci.finding import Check, Finding, Level, RunReport, Status
from kubectl_gadget.counts import count
from kubectl_gadget.output.escape import for_xml

_SUITE = "kubectl gadget"
_MOST = 50
_LONGEST = 1000


def render(report: RunReport) -> str:
    suite = ET.Element("testsuite", name=_SUITE, timestamp=report.began[:19], time=f"{report.seconds:.3f}")
    if report.command_code is not None:
        command = " ".join(report.command)
        case = _case(suite, "command", command, report.seconds)
        if report.command_code:
            _result(case, "failure", "command", f"exit code {report.command_code}", [command])
    case = _case(suite, "tracing", "everything was seen")
    if report.incomplete:
        _result(case, "error", "inconclusive", report.incomplete[0], report.incomplete)
    for check in report.checks:
        _add_check(suite, check)
    counts = {
        "tests": len(suite),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": 0,
    }
    suites = ET.Element("testsuites", name=_SUITE, time=f"{report.seconds:.3f}")
    for element in (suite, suites):
        element.attrib.update({name: str(number) for name, number in counts.items()})
    suites.append(suite)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _case(suite: ET.Element, kind: str, name: str, seconds: float = 0) -> ET.Element:
    attributes = {"classname": f"{_SUITE}.{kind}", "name": for_xml(name, _LONGEST), "time": f"{seconds:.3f}"}
    return ET.SubElement(suite, "testcase", attributes)


def _result(case: ET.Element, tag: str, type: str, message: str, lines: Iterable[str]) -> None:
    element = ET.SubElement(case, tag, message=for_xml(message, _LONGEST), type=type)
    element.text = _text(lines)


def _text(lines: Iterable[str]) -> str:
    # A line that a program chose must not begin with what a runner takes as its command.
    return "\n".join(f"- {for_xml(line, _LONGEST)}" for line in lines)


def _add_check(suite: ET.Element, check: Check) -> None:
    case = _case(suite, check.kind, check.name)
    if check.source is not None:
        case.set("file", for_xml(check.source.file))
        case.set("line", str(check.source.line))
    errors = [finding for finding in check.findings if finding.level is Level.ERROR]
    others = [finding for finding in check.findings if finding.level is not Level.ERROR]
    if errors:
        said = errors[0].message if len(errors) == 1 else f"{count(len(errors), 'finding')}; {errors[0].message}"
        _result(case, "failure", check.kind, said, _texts(errors))
    elif check.status is Status.INCONCLUSIVE:
        _result(case, "error", "inconclusive", check.undecided, [check.undecided])
    if others or check.left_out:
        ET.SubElement(case, "system-out").text = _text(_texts(others, check.left_out))


def _texts(findings: list[Finding], left_out: int = 0) -> Iterator[str]:
    for finding in findings[:_MOST]:
        step = f", in step {finding.step!r}" if finding.step else ""
        source = f" [{finding.source}]" if finding.source else ""
        where = f"{finding.where}: " if str(finding.where) else ""
        yield f"{finding.level}: {where}{finding.message} ({finding.count:,}×{step}){source}"
    if more := max(0, len(findings) - _MOST) + left_out:
        yield f"and {more:,} more"
