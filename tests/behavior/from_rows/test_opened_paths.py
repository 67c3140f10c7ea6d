"""Directories in which many names are opened."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.behavior.from_rows.generalization import Generalizer, read_rules
from kubectl_gadget.behavior.from_rows.opened_paths import OpenedPaths
from kubectl_gadget.behavior.from_rows.sightings import Sighting

RULES = Generalizer(read_rules())
MANY = [f"/app/lib/{name}" for name in "abcdefghijklm"]
_PATHS = st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=4), min_size=1, max_size=60)


def opened(paths: list[str]) -> dict[str, int]:
    found = OpenedPaths(RULES)
    for path in paths:
        found.add(path, Sighting("2026", {}, frozenset({"pod"})))
    return {path: seen.count for path, seen in found}


def test_few_names_stay() -> None:
    assert opened(MANY[:12]) == dict.fromkeys(MANY[:12], 1)


def test_many_names_become_one_pattern_with_what_was_seen_of_all() -> None:
    assert opened([*MANY, "/app/lib/x/y/z", "/app/other"]) == {"/app/lib/*": 14, "/app/other": 1}


@given(_PATHS, st.randoms(use_true_random=False))
def test_the_order_of_opens_does_not_matter(parts: list[list[str]], shuffle: random.Random) -> None:
    paths = ["/app/" + "/".join(names) for names in parts]
    other = list(paths)
    shuffle.shuffle(other)

    assert opened(paths) == opened(other)


@given(_PATHS, st.integers(0, 60))
def test_pods_together_give_what_one_pod_would(parts: list[list[str]], first: int) -> None:
    paths = ["/app/" + "/".join(names) for names in parts]
    together = OpenedPaths(RULES)
    for some in (paths[:first], paths[first:]):
        for path, count in opened(some).items():
            together.add(path, Sighting("2026", {}, frozenset(), count=count))

    assert {path: seen.count for path, seen in together} == opened(paths)


def test_directories_that_matter_never_become_a_pattern() -> None:
    names = [f"/etc/{name}" for name in "abcdefghijklmnopqrst"]

    assert opened(names) == dict.fromkeys(names, 1)


def test_a_sensitive_file_stays_beside_the_pattern() -> None:
    secret = "/home/me/work/.ssh/id_rsa"

    assert secret in opened([*(f"/home/me/work/{name}" for name in range(40)), secret])


def test_a_file_that_starts_something_stays_beside_the_pattern() -> None:
    found = OpenedPaths(RULES, "write")
    for path in (*(f"/home/me/{name}" for name in range(40)), "/home/me/.bashrc"):
        found.add(path, Sighting("2026", {}, frozenset()))

    assert {path for path, _ in found} == {"/home/me/*", "/home/me/.bashrc"}


def test_a_directory_that_became_a_pattern_may_be_opened_itself() -> None:
    assert opened(["/app/lib", *MANY]) == opened([*MANY, "/app/lib"]) == {"/app/lib": 1, "/app/lib/*": 13}
