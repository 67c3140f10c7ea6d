"""The registry of formats: every format that help offers is made by somebody, and every other one is refused."""

import io

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.flows import formats as of_flows
from kubectl_gadget.observe import formats as of_stories
from kubectl_gadget.output import output_formats, registry
from kubectl_gadget.output.registry import FLOWS, LISTS, ROWS, STORY, TEMPLATES, Formats

EVERY = [value for value in vars(registry).values() if isinstance(value, Formats)]


def test_each_format_has_a_maker_and_each_maker_a_format() -> None:
    assert set(output_formats.MAKERS) == set(ROWS.names)
    assert set(of_flows.MAKERS) == set(FLOWS.names)
    assert set(of_stories.MAKERS) | set(ROWS.names) >= set(STORY.names)
    assert set(of_stories.MAKERS) <= set(STORY.names)


@pytest.mark.parametrize("known", EVERY)
def test_what_is_listed_is_taken_and_the_default_is_one_of_them(known: Formats) -> None:
    assert known.default in known.names
    assert set(known.rare) < set(known.names)
    for name in known.names:
        text = TEMPLATES.get(name, name)
        assert known.check(text) == text
    for wrong in ("", "tabel", "json=x", "jsonpath", "custom-columns="):
        with pytest.raises(ValueError, match=r"must be one of|template"):
            known.check(wrong)


def test_help_leaves_out_what_only_some_gadgets_have() -> None:
    assert ROWS.help == "table wide json yaml csv name jsonpath= custom-columns="
    assert "pprof" in ROWS.choices
    assert LISTS.words == "table, json or name"


def test_a_story_without_a_maker_of_its_own_is_printed_as_columns() -> None:
    assert [name for name in STORY.names if of_stories.StoryOutput(name).is_flat] == [
        *("table", "wide", "yaml", "csv", "name", "jsonpath", "custom-columns")
    ]
    assert not of_stories.StoryOutput("table", tree=True).is_flat
    of_stories.StoryOutput("jsonpb").sink(io.StringIO(), None).close()


def test_a_format_that_does_not_exist_is_refused_with_its_neighbours() -> None:
    with pytest.raises(UsageError, match="unknown output format 'jsn'"):
        FLOWS.choose("jsn", of_flows.MAKERS)
