"""What `behavior check` says of rows that are not in a baseline."""

import pytest

from kubectl_gadget.behavior import new_facts
from kubectl_gadget.behavior.facts import Unit
from kubectl_gadget.behavior.generalization import Generalizer, read_rules
from kubectl_gadget.behavior.new_facts import NewFacts
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.rows.containers import UNKNOWN
from tests.behavior.made import behavior, fact
from tests.behavior.rows import Row, execs, opens, row

RULES = Generalizer(read_rules())
CART = execs(10, "/bin/cart", pod="cart")


def judged(checked: NewFacts, *rows: Row) -> list[str]:
    found = checked.judge([({**each, "pod": "cart", "container": "main"}, UNKNOWN, 1) for each in rows])
    return [item.change.fact.says for item in found]


def test_each_new_fact_is_said_once() -> None:
    checked = NewFacts(behavior(), RULES)

    assert judged(checked, CART, opens(10, "/etc/passwd")) == [
        "(runtime) runs /bin/cart",
        "/bin/cart reads /etc/passwd",
    ]
    assert judged(checked, opens(10, "/etc/passwd")) == []


def test_a_name_that_was_temporary_before_is_known_while_it_exists() -> None:
    pod = Unit(Workload("shop", "Pod", "cart"), "main")
    written = fact("open", "/bin/cart", "write /srv/target/<tmp>/deps/full.rmeta", pod)
    known = written, fact("program", "/bin/cart", "(runtime)", pod)
    checked = NewFacts(behavior(*known), RULES)
    made = [
        row("file", operation="mkdir", path=path, mode="0777")
        for path in ("/srv/target", "/srv/target/rmetaqzx", "/srv/target/rmetaqzx/deps")
    ]

    assert judged(checked, CART, *made, opens(10, "/srv/target/rmetaqzx/deps/full.rmeta", 0o101)) == []
    assert judged(checked, opens(10, "/srv/target/other/full.rmeta", 0o101)) == [
        "/bin/cart writes /srv/target/other/full.rmeta"
    ]


def test_the_removal_of_a_renamed_directory_is_known_while_it_happens() -> None:
    pod = Unit(Workload("shop", "Pod", "cart"), "main")
    values = ("write /srv/<removed>", "read /srv/<removed>", "read /srv/old/tea.json")
    known = [fact("open", "/bin/cart", value, pod) for value in values]
    checked = NewFacts(behavior(*known, fact("program", "/bin/cart", "(runtime)", pod)), RULES)
    moved = row("file", operation="rename", path="/srv/old", to="/srv/wx")

    assert judged(checked, CART, moved, opens(10, "/srv/wx"), opens(10, "/srv/wx/tea.json")) == []
    assert judged(checked, opens(10, "/srv/wx/own", 0o1), opens(10, "/srv/other")) == [
        "/bin/cart writes /srv/wx/own",
        "/bin/cart reads /srv/other",
    ]


def test_a_flood_of_new_facts_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_facts, "MOST_NEW", 5)
    checked = NewFacts(behavior(), RULES)
    flood = [row("bind", protocol="TCP", port=port, asked_port=port) for port in range(1, 40)]

    assert len(judged(checked, CART, *flood)) == 5
    assert "shop/pod/cart/main does more than 5 new things: what else it did that is new was not shown" in list(
        checked.notes()
    )


def test_a_file_that_starts_something_is_said_beside_many_others() -> None:
    checked = NewFacts(behavior(fact("listen", "/bin/cart", "80/tcp")), RULES)
    files = [opens(10, f"/home/me/{name}", 0o1) for name in "abcdefghijklmnopqrst"]

    found = judged(checked, CART, *files, opens(10, "/home/me/.bashrc", 0o1), opens(10, "/home/me/other", 0o1))

    assert found[-2:] == ["/bin/cart writes /home/me/*", "/bin/cart writes /home/me/.bashrc"]
