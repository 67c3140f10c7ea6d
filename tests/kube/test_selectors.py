"""Label selectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.selectors import parse


@pytest.mark.parametrize(
    ("selector", "labels", "accepted"),
    [
        ("app=web", {"app": "web"}, True),
        ("app==web", {"app": "db"}, False),
        ("app!=web", {}, True),
        ("app!=web", {"app": "web"}, False),
        ("app in (web, db)", {"app": "db"}, True),
        ("app in (web,db)", {}, False),
        ("app notin (web,db)", {}, True),
        ("app notin (web)", {"app": "web"}, False),
        ("app", {"app": ""}, True),
        ("!app", {}, True),
        ("!app", {"app": ""}, False),
        ("app=", {"app": ""}, True),
        ("example.com/tier=a,!old , env in (x)", {"example.com/tier": "a", "env": "x"}, True),
        ("in=a,notin in (b)", {"in": "a", "notin": "b"}, True),
        ("", {}, True),
    ],
)
def test_a_selector_accepts_as_kubectl_does(selector: str, labels: dict[str, str], accepted: bool) -> None:
    assert parse(selector).accepts(labels) is accepted


@pytest.mark.parametrize(
    "selector", ["=a", "app=web db", "app in web", "app in (a", "a=b,", "a=-", "a in (b c)", "a,,b"]
)
def test_a_wrong_selector_is_a_usage_error(selector: str) -> None:
    with pytest.raises(UsageError, match="selector"):
        parse(selector)


@given(st.text(alphabet="ab=!,() in./-", max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        parse(text).accepts({"a": "b"})
    except UsageError:
        return
