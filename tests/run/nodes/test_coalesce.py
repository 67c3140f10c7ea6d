from kubectl_gadget.run.nodes.backlog import Content, Events, Item
from kubectl_gadget.run.nodes.coalesce import coalesced, together
from kubectl_gadget.run.nodes.coverage import Gap
from kubectl_gadget.wire.agent_messages import ContainerChanges
from kubectl_gadget.wire.frames import LAST, EventsHeader, split_events

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


def grouped(items: list[Item], can_join: bool = True) -> list[list[tuple[str, int]]]:
    """Node and complete_until (-1: no events) of what comes together."""
    found = []
    for one in together(items, lambda node, gadget: can_join):
        if isinstance(one, Item):
            payload = one.content.payload if isinstance(one.content, Events) else None
            found.append([(one.node, -1 if payload is None else split_events(payload)[0].complete_until)])
        else:
            found.append([(frame.item.node, frame.head.complete_until) for frame in one])
    return found


A, B, C = (of(name, events(bytes(8), until))[0] for name, until in (("a", 1), ("b", 2), ("c", 3)))


def test_small_frames_of_several_nodes_come_together() -> None:
    assert grouped([A, B, C]) == [[("a", 1), ("b", 2), ("c", 3)]]
    assert grouped([A, B, C], can_join=False) == [[("a", 1)], [("b", 2)], [("c", 3)]]


def test_what_a_node_announces_stays_between_its_frames_and_those_of_others_go_on() -> None:
    announced = Item("a", CONTAINERS)
    assert grouped([A, B, announced, A, C]) == [[("a", 1), ("b", 2)], [("a", -1)], [("a", 1), ("c", 3)]]
    assert grouped([B, announced, A, C]) == [[("a", -1)], [("b", 2), ("a", 1), ("c", 3)]]


def test_two_frames_of_a_node_are_never_in_one_group() -> None:
    assert grouped([A, B, A]) == [[("a", 1), ("b", 2)], [("a", 1)]]


def test_gadgets_are_apart_and_large_frames_alone() -> None:
    other, large = of("a", events(bytes(8), 5, gadget=1), events(bytes(16 << 10), 6))
    assert grouped([A, other, B]) == [[("a", 1), ("b", 2)], [("a", 5)]]
    assert grouped([A, large, B]) == [[("a", 1)], [("a", 6)], [("b", 2)]]


def test_a_gap_comes_after_all_frames_before_it() -> None:
    assert grouped([A, B, Item("c", Gap(1.0, 2)), C]) == [[("a", 1), ("b", 2)], [("c", -1)], [("c", 3)]]
