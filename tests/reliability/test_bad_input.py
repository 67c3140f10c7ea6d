"""Files that users give us, spoilt: each is taken, or refused in words; nothing else comes out of reading them.

What a gadget is made into, its object and its schema, is in test_bad_gadgets.py. Parsers of what comes from nodes and
from the network have such tests beside them (tests/wire, tests/events, tests/views, tests/agent, tests/policies,
tests/network_policies).
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets.gadget_yaml import read_description
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.output.jsonpath import compile_template, custom_columns
from tests.examples import examples
from tests.gadgets.test_gadget_yaml import gadget
from tests.kube.test_kubeconfig import config
from tests.rows.records import OPEN
from tests.spoilt import spoilt

many = settings(
    max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@given(spoilt(gadget()))
@many
def test_a_spoilt_gadget_is_read_or_refused_in_words(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "trace_something.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    try:
        read_description(path)
    except GadgetError as error:
        said = str(error)
    else:
        return
    assert str(path) in said


@pytest.mark.slow
@given(st.text(max_size=60) | st.binary(max_size=60))
@example(b"\xff\xfe")
@example("a: &x [*x]")
@example("[" * 3000)
@many
def test_a_file_that_is_not_yaml_is_refused_with_the_reason(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "trace_something.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    with pytest.raises(GadgetError):
        read_description(path)
    try:
        load(KubeOptions(kubeconfig=str(path)))
    except GadgetError:
        return


FULL = config(namespace="here") | {
    "users": [
        {
            "name": "a",
            "user": {
                "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "args": ["y"], "env": []},
                "client-certificate-data": "eA==",
                "as": "jane",
                "as-groups": ["g"],
            },
        }
    ]
}


@given(spoilt(FULL))
@example(FULL | {"clusters": [{"name": "c", "cluster": {0: False}}]})
@many
def test_a_spoilt_kubeconfig_is_read_or_refused_in_words(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(value))
    try:
        load(KubeOptions(kubeconfig=str(path)))
    except GadgetError:
        return


WORDS = st.lists(
    st.sampled_from(
        [*"()[]{}.,:?!<>+-*/%&|\"'\\", "&&", "||", "==", " in ", "pid", "path", "comm", "1", "null", "true"]
    )
    | st.text(max_size=2),
    max_size=12,
).map("".join)


@given(WORDS)
@example("(" * 2000 + "1" + ")" * 2000)
@example("!" * 5000 + "true")
@example("pid == " + "9" * 5000)
@many
def test_an_expression_is_compiled_or_refused_in_words(text: str) -> None:
    for read in (
        lambda: compile_filter(text, [OPEN]),
        lambda: compile_template(text, frozenset({"pid", "path"})),
        lambda: custom_columns(text, frozenset({"pid", "path"})),
    ):
        try:
            read()
        except GadgetError:
            continue
