"""UPDATE frames lead from one state of the tables to the next, in an order in which nothing is missing in between."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.run.live_tables import Contents, LiveTables, updates

BYTES = st.binary(min_size=1, max_size=2)
NAMES = st.sampled_from(["default/a", "default/b", "shop/c"])
CONTENTS = st.builds(
    lambda peers, ports, pods, namespaces: Contents(
        {"peers": peers, "ports": ports}, "pods", pods, namespaces, b"\1", b"\2"
    ),
    st.dictionaries(BYTES, BYTES, max_size=4),
    st.dictionaries(BYTES, BYTES, max_size=4),
    st.dictionaries(NAMES, BYTES),
    st.dictionaries(st.sampled_from(["default", "shop"]), BYTES),
)


class Applied:
    """What an agent has of the frames it got."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, str]] = {"peers": {}, "ports": {}}
        self.pods: dict[str, str] = {}
        self.namespaces: dict[str, str] = {}

    def take(self, update: dict[str, Any]) -> None:
        assert update["gadget"] == 3
        for table, entries in update.get("set", {}).items():
            self.tables[table] |= entries
        told = update.get("containers", {})
        for mine, changes in ((self.pods, told.get("pods", {})), (self.namespaces, told.get("namespaces", {}))):
            for name, value in changes.items():
                if value is None:
                    del mine[name]
                else:
                    mine[name] = value
        for table, keys in update.get("remove", {}).items():
            for key in keys:
                del self.tables[table][key]

    def has(self, contents: Contents) -> bool:
        return (self.tables, self.pods, self.namespaces) == (
            {name: _hex(entries) for name, entries in contents.tables.items()},
            {name: value.hex() for name, value in contents.pods.items()},
            {name: value.hex() for name, value in contents.namespaces.items()},
        )


def _hex(entries: Any) -> dict[str, str]:
    return {key.hex(): value.hex() for key, value in entries.items()}


@given(st.lists(CONTENTS, max_size=4))
def test_updates_lead_from_each_state_to_the_next(states: list[Contents]) -> None:
    applied, before = Applied(), Contents()
    for now in states:
        for update in updates(3, before, now):
            applied.take(update.to_json())
        assert applied.has(now)
        assert list(updates(3, now, now)) == []
        before = now


@given(CONTENTS, CONTENTS)
def test_what_is_new_is_set_before_containers_use_it_and_what_goes_after(before: Contents, now: Contents) -> None:
    order = [next(iter(update.to_json().keys() - {"gadget"})) for update in updates(0, before, now)]
    assert order == sorted(order, key=["set", "containers", "remove"].index)


def test_many_entries_are_several_frames() -> None:
    many = {number.to_bytes(4): b"x" for number in range(50_000)}
    found = list(updates(0, Contents(), Contents({"peers": many})))
    assert [len(update.set["peers"]) for update in found] == [20_000, 20_000, 10_000]


def test_a_listener_gets_each_change_until_it_ends() -> None:
    tables, told = LiveTables(), []
    end = tables.listen(lambda: told.append(1))
    tables.replace(lambda node, addresses: Contents({node: {}, **{address: {} for address in addresses}}))
    assert tables.of("n1") == Contents({"n1": {}})
    assert tables.of("n1", ("10.0.0.1",)) == Contents({"n1": {}, "10.0.0.1": {}})
    end()
    tables.replace(lambda node, addresses: Contents())
    assert told == [1]
