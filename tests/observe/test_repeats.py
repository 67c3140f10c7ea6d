"""What a program repeats on the network is summed up, in lines and in the tree; nothing is left out of the sums."""

from dataclasses import replace

from kubectl_gadget.observe.formats import Tree
from kubectl_gadget.observe.happening import ConnectionEvent
from kubectl_gadget.observe.lines import line
from kubectl_gadget.observe.repeats import Repeats
from kubectl_gadget.observe.story import StoryEvent
from tests.observe.lives import SHELL, Life, event

PORT = 5432


def connection(operation: str, port: int, **more: object) -> ConnectionEvent:
    source, target = ("10.0.0.1", port), ("10.0.0.2", PORT)
    return replace(ConnectionEvent("connect", SHELL, 7, "TCP", source, target, f"f{port}"), operation=operation, **more)


def life() -> Life:
    made = Life()
    made.apply(event("running", SHELL, exe="/bin/sh", args=("sh",), container_pid=1))
    return made


def connections(made: Life, count: int, seconds: float = 0.001, first: int = 40000) -> list[StoryEvent]:
    """So many connections to one port: each is made and closed, with a byte more than the one before."""
    found = []
    for number in range(count):
        made.time += int(seconds * 1e9)
        found.append(made.told(connection("connect", first + number)))
        found.append(made.told(connection("close", first + number, sent=number, received=10)))
    return found


def lines(entries: list[StoryEvent]) -> list[str]:
    repeats = Repeats()
    return [line(entry) for entry in (*repeats.add_all(entries), *repeats.rest())]


def test_the_first_is_shown_whole_and_the_others_as_one() -> None:
    assert lines(connections(life(), 100)) == [
        "🔌 connect default/xwing /bin/sh tcp 10.0.0.1:40000 -> 10.0.0.2:5432",
        "🧹 close   default/xwing /bin/sh tcp 10.0.0.1:40000 -> 10.0.0.2:5432 0 out, 10 in",
        "🔌 connect default/xwing /bin/sh tcp 10.0.0.1 -> 10.0.0.2:5432 99 more",
        "🧹 close   default/xwing /bin/sh tcp 10.0.0.1 -> 10.0.0.2:5432 4950 out, 990 in 99 more",
    ]


def test_a_second_one_alone_is_shown_as_it_was() -> None:
    assert lines(connections(life(), 2))[2:] == [
        "🔌 connect default/xwing /bin/sh tcp 10.0.0.1:40001 -> 10.0.0.2:5432",
        "🧹 close   default/xwing /bin/sh tcp 10.0.0.1:40001 -> 10.0.0.2:5432 1 out, 10 in",
    ]


def test_sums_come_every_ten_seconds_and_before_the_end_of_the_process() -> None:
    made = life()
    entries = connections(made, 50, seconds=0.5)
    entries.append(made.told(event("exit", SHELL)))
    found = lines(entries)
    counts = [int(text.split(" more")[0].split()[-1]) for text in found if " more" in text and "connect" in text]
    assert len(counts) == 3
    assert sum(counts) == 49
    assert "exit" in found[-1]


def test_what_differs_is_not_mixed() -> None:
    made = life()
    entries = []
    for number in range(10):
        entries.append(made.told(connection("connect", 40000 + number, error="ECONNREFUSED" if number % 2 else "")))
    assert sorted(text.split(" tcp ")[1] for text in lines(entries)) == [
        "10.0.0.1 -> 10.0.0.2:5432 4 more",
        "10.0.0.1 -> 10.0.0.2:5432 ECONNREFUSED 4 more",
        "10.0.0.1:40000 -> 10.0.0.2:5432",
        "10.0.0.1:40001 -> 10.0.0.2:5432 ECONNREFUSED",
    ]


def test_the_tree_has_a_line_for_each_place_with_all_bytes() -> None:
    tree = Tree()
    for entry in connections(life(), 100):
        tree.add(entry)
    assert [text.strip(" │├└─") for text in tree.lines()][-2:] == [
        "🔌 connect tcp 10.0.0.1 -> 10.0.0.2:5432, 100 times",
        "🧹 close tcp 10.0.0.1 -> 10.0.0.2:5432 4950 out, 1000 in, 100 times",
    ]


def test_a_program_that_connects_everywhere_loses_nothing() -> None:
    made = life()
    entries = [
        made.told(replace(connection("connect", 40000), target=(f"10.{high}.{low}.1", PORT)))
        for high in range(90)
        for low in range(250)
        for _ in range(2)
    ]
    assert len(lines(entries)) == len(entries)
