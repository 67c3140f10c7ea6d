"""Whatever misleads, the cause comes first, and nothing repeats what misleads: all rules, over their examples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kubectl_gadget.diagnose.examples import found_in
from kubectl_gadget.diagnose.findings import Found
from kubectl_gadget.diagnose.last_words import last_words
from kubectl_gadget.diagnose.rules import Example, load, own_files
from tests.diagnose.deceptive import CASES, Case

RULES = load(own_files())
_BY_NAME = {rule.name: rule for rule in RULES}


def _records(case: Case) -> Iterator[Mapping[str, Any]]:
    yield from case.records
    if (words := last_words(case.log)) is not None:
        yield {"object": "last_words", "container": "app", **words, "exit_code": 1}


def _roots(case: Case) -> Sequence[Found]:
    seen: Example = next(each for each in _BY_NAME[case.rule].examples if each.finds)
    beside = replace(seen, records=(*seen.records, *_records(case)))
    return found_in(RULES, beside)


def _words(found: Iterable[Found]) -> str:
    return "\n".join(f"{each.words.title}\n{each.words.cause}\n{each.words.remedy}" for each in found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_what_misleads_is_not_repeated_and_the_cause_comes_first(case: Case) -> None:
    roots = _roots(case)
    said = _words(roots)
    assert [each.rule.name for each in roots][:1] == [case.rule], said
    assert [words for words in case.claims if words.lower() in said.lower()] == [], said
