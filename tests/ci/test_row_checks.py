"""Which rows are one finding."""

from kubectl_gadget.ci.assertions import NONE, Assertion
from kubectl_gadget.ci.row_checks import RowCheck
from kubectl_gadget.ci.steps import Marks
from kubectl_gadget.reports.model import Check
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.containers import Identity
from tests.rows import records


def found(*opened: tuple[bytes, bytes]) -> Check:
    """The check that no file is opened, of these programs and paths."""
    check = RowCheck(Assertion("any", NONE), Marks())
    batch = decode(records.OPEN, "node", records.ring(*(records.record(comm=comm, path=path) for comm, path in opened)))
    batch.name_owners(Identity("node").lookup)
    check.take(batch)
    return check.check(())


def test_a_program_that_changes_its_name_is_one_finding() -> None:
    (finding,) = found(*((b"w%d" % number, b"/etc/shadow") for number in range(300))).findings
    assert finding.count == 300


def test_two_peers_are_two_findings() -> None:
    check = found((b"curl", b"1.2.3.4:443"), (b"curl", b"66.6.6.66:443"), (b"curl", b"66.6.6.66:443"))
    assert [each.count for each in check.findings] == [1, 2]
    assert len({each.fingerprint for each in check.findings}) == 2
