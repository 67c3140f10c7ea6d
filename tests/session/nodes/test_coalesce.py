from kubectl_gadget.session.nodes.backlog import Content, Events, Item
from kubectl_gadget.session.nodes.coalesce import coalesced
from kubectl_gadget.wire import LAST, EventsHeader, split_events
from kubectl_gadget.wire.agent_messages import ContainerChanges

CONTAINERS = ContainerChanges()


def events(data: bytes, until: int, gadget: int = 0, flags: int = 0) -> Events:
    return Events(EventsHeader(gadget, until, until, flags).encode() + data)


def of(node: str, *frames: Content) -> list[Item]:
    return [Item(node, frame) for frame in frames]


def told(items: list[Item]) -> list[tuple[str, int, bytes, int]]:
    """Of EVENTS frames: node, gadget, records, complete_until; of others -1."""
    found = []
    for item in coalesced(items):
        if not isinstance(item.content, Events):
            found.append((item.node, -1, b"", -1))
            continue
        head, data = split_events(item.content.payload)
        found.append((item.node, head.gadget, bytes(data), head.complete_until))
    return found


def test_events_of_one_node_become_one_frame_that_is_complete_until_the_last_one_is() -> None:
    assert told(of("a", events(b"1", 5), events(b"2", 6), events(b"", 7))) == [("a", 0, b"12", 7)]


def test_events_of_different_nodes_stay_apart() -> None:
    one, two = of("a", events(b"1", 5), events(b"2", 6)), of("b", events(b"3", 7), events(b"4", 8))
    mixed = [one[0], two[0], one[1], two[1]]
    assert told(mixed) == [("a", 0, b"12", 6), ("b", 0, b"34", 8)]


def test_events_do_not_move_past_a_frame_with_containers() -> None:
    frames = of("a", events(b"1", 5), CONTAINERS, events(b"2", 6), events(b"3", 7))
    assert told(frames) == [("a", 0, b"1", 5), ("a", -1, b"", -1), ("a", 0, b"23", 7)]


def test_events_of_different_gadgets_stay_apart_and_in_order() -> None:
    frames = of("a", events(b"1", 5), events(b"2", 6, gadget=1), events(b"3", 7, gadget=1), events(b"4", 8))
    assert told(frames) == [("a", 0, b"1", 5), ("a", 1, b"23", 7), ("a", 0, b"4", 8)]


def test_parts_of_totals_stay_as_they_are() -> None:
    frames = of("a", events(b"1", 5, flags=LAST), events(b"2", 6, flags=LAST))
    assert told(frames) == [("a", 0, b"1", 5), ("a", 0, b"2", 6)]


def test_a_frame_that_is_too_short_is_passed_on_for_the_reader_to_refuse() -> None:
    short = Item("a", Events(b"x"))
    assert list(coalesced([*of("a", events(b"1", 5)), short]))[1] == short
