"""Facts and their merge."""

from kubectl_gadget.behavior.facts import Coverage, FactKind, Unit, merge
from kubectl_gadget.kube.inventory import Workload
from tests.behavior.made import CART, behavior, fact


def test_what_is_known_about_a_fact_is_no_part_of_its_equality() -> None:
    once = fact("program", "/bin/sh", "/bin/cart", count=1, first_seen="2026-01-01T00:00:00Z")
    often = fact("program", "/bin/sh", "/bin/cart", count=900, pods=3, evidence={"pid": 7})

    assert once == often
    assert hash(once) == hash(often)
    assert once.id == often.id


def test_runs_are_added_up_and_the_earliest_row_is_kept() -> None:
    late = behavior(fact("listen", "/bin/cart", "8080/tcp", first_seen="2026-02-01", evidence={"pid": 2}, count=4))
    early = behavior(fact("listen", "/bin/cart", "8080/tcp", first_seen="2026-01-01", evidence={"pid": 1}, pods=2))

    (found,) = merge([late, early]).facts

    assert (found.pods, found.runs, found.count) == (3, 2, 5)
    assert (found.first_seen, found.evidence) == ("2026-01-01", {"pid": 1})


def test_a_merge_is_complete_once_for_each_complete_run() -> None:
    lossy = behavior(complete_runs=0, incomplete=("12 events were lost",))

    merged = merge([behavior(), lossy]).coverage[CART]

    assert (merged.runs, merged.complete_runs, merged.incomplete) == (2, 1, ("12 events were lost",))
    assert merged.has_gaps


def test_renamed_workloads_that_become_one_are_one() -> None:
    old = Unit(Workload("shop", "Pod", "cart-1"), "main")
    both = behavior(fact("resolve", "/bin/cart", "db"), fact("resolve", "/bin/cart", "db", old))

    found = both.renamed({old.workload: CART.workload})

    assert [one.unit for one in found.facts] == [CART]
    assert found.coverage == {CART: Coverage(2, 2, 2)}


def test_a_fact_is_a_sentence() -> None:
    assert fact("program", "/usr/bin/curl", "/bin/sh").says == "/bin/sh runs /usr/bin/curl"
    assert fact("open", "/bin/cart", "read /etc/passwd").says == "/bin/cart reads /etc/passwd"
    assert all(fact(kind, "/bin/cart", "x").says for kind in FactKind)
