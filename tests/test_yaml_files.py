"""Errors for files that are not YAML: one line with the place and the reason."""

from pathlib import Path

import pytest
import yaml

from kubectl_gadget import yaml_reader
from kubectl_gadget.errors import UsageError
from kubectl_gadget.yaml_files import Kind, SchemaField, no_yaml, read_yaml
from kubectl_gadget.yaml_reader import documents, read_mapping

LINES = "a: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n\tb: 1\n", "f:2:1: is not valid YAML: YAML cannot be indented with tabs: use spaces"),
        (
            "a:\n    b: 1\n  c: 2\n",
            "f:3:3: is not valid YAML: unexpected here: check the",
        ),
        ("a:\n- b: 1\n - c\n", ":3:"),
        ("a:\n  b 1\n  c: 2\n", "f:3:4: is not valid YAML: one `:` too many: look for missing quotes"),
        ("a: [1, 2\nb: 3\n", "(it began in line 1)"),
        ('a: "x\nb: 1\n', "f:3:1: is not valid YAML: the file ends before a quote does (it began in line 1)"),
        ("a: 1\nb: @c\n", "f:2:4: is not valid YAML: write quotes around what begins with '@'"),
        ("a: *b\n", "f:1:4: is not valid YAML: found undefined alias"),
        ("a: 1\nb: \x01\n", "f:2:4: is not valid YAML:"),
    ],
)
def test_the_place_and_the_mistake_are_reported_in_one_line(
    loader: type[yaml.SafeLoader], text: str, said: str
) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        list(yaml.load_all(text, loader))
    message = str(no_yaml("f", text, caught.value))
    assert said in message
    assert "\n" not in message
    assert "while parsing" not in message


def test_errors_without_a_place_are_one_line_too() -> None:
    assert str(no_yaml("f", "", ValueError("a\n  b"))) == "f is not valid YAML: a b"


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^/dev/zero has more than 4 MiB$"):
        read_yaml(Path("/dev/zero"), len)


@pytest.mark.parametrize("text", [LINES, "a: &a\n  b: *a\n", "&a [*a]\n", "&a {? *a : b}\n"])
def test_few_lines_that_stand_for_millions_of_values_are_refused(text: str) -> None:
    for read in (documents, lambda file, text: read_mapping(file, text, SchemaField("", "object"))):
        with pytest.raises(UsageError, match=r"^f:1:1: repeats too much by aliases"):
            read("f", text)


def test_aliases_alone_are_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_reader, "MOST_REPEATED", 3000)
    text = "a: &a {x: 1}\n" + "".join(f"b{n}: *a\n" for n in range(1000))
    assert len(documents("f", text)) == 1
    assert len(documents("f", "[" + "x," * 3500 + "]")) == 1


@pytest.mark.parametrize("key", ["[a]", "{a: b}"])
def test_a_key_that_is_not_a_single_value_has_the_place_of_its_mapping(key: str) -> None:
    schema = SchemaField("", "object", fields=(SchemaField("a", "map of text"),))
    with pytest.raises(UsageError, match=r"^f:1:5: a has a (list|mapping) as a key, which must be a single value$"):
        read_mapping("f", f"a: {{{key}: c}}", schema)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"), [("flag", "true", "true or false"), ("integer", "5", "a whole number")]
)
def test_quotes_that_make_a_text_are_named(kind: Kind, value: str, wanted: str) -> None:
    schema = SchemaField("", "object", fields=(SchemaField("a", kind),))
    assert "a" in read_mapping("f", f"a: {value}", schema)
    with pytest.raises(UsageError, match=f"^f:1:4: a must be {wanted}, not '{value}': remove the quotes$"):
        read_mapping("f", f'a: "{value}"', schema)
