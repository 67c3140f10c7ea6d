"""YAML and CSV of whole columns are byte for byte what the libraries write for each row."""

import csv
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from kubectl_gadget.output import machine
from kubectl_gadget.output.escape import csv_line, is_printable
from kubectl_gadget.output.machine import csv_cell
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.rows import Rows
from tests.output.test_output_formats import printed, rows
from tests.rows.records import record

WORDS = [
    *("yes", "No", "TRUE", "off", "null", "Null", "~", "", "y", "n", "nan", ".inf", "=", "<<", "-", "--", "---", "..."),
    *("123", "0x1f", "1_000", "1.5", "1e3", "0o7", "2026-11-27", "12:30:45", "+1", "-1", "a.b", "a_b-c/d", "/a/b", "."),
    *(
        "a: b",
        "a:",
        ":a",
        "# x",
        "a #b",
        "- a",
        "? a",
        "[a]",
        "{a}",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "@a",
        "`a",
        "%a",
        "a%s",
    ),
    *(
        "'",
        '"',
        "a'b",
        'a"b',
        ",",
        "a,b",
        " a",
        "a ",
        "\t",
        "a\tb",
        "\n",
        "a\nb",
        "a\r\nb",
        "a\rb",
        "\x1b[2J",
        "\x7f",
        "\\u0041",
    ),
    *("é", "日本", "a\u202eb", "\u2028", "\ufeff", "😀", "é\x1b", "100%", "%d", "a" * 300, "a b " * 60),
]
RAW = [*(word.encode() for word in WORDS), b"\xff", b"a\xffb", b"\xc3"]


def hostile() -> Rows:
    """Every word as a path, as a program's name and in a list, in some rows together with harmless ones."""
    made = [record(path=word) for word in RAW] + [record(args=[word, b"a"]) for word in RAW]
    made += [record(comm=word[:15]) for word in RAW] + [record(path=b"/x", args=[]), record(errno=2, path_cut=True)]
    found = rows(*made)
    found.parts[0].late = np.array([number % 3 == 0 for number in range(len(made))])
    return found


@pytest.mark.parametrize("columns", [(), ("path",), ("pid", "path", "comm")])
def test_yaml_is_what_the_library_writes_for_each_row(columns: tuple[str, ...]) -> None:
    found = hostile()
    records = MemberRows(columns).records(found)

    def dump(record: dict[str, object]) -> str:
        unicode = is_printable(record)
        text: str = yaml.dump(
            record,
            Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
            sort_keys=False,
            allow_unicode=unicode,
            width=1 << 30,
            default_flow_style=False,
        )
        return "---\n" + text

    assert printed("yaml", found, columns=columns).split("---\n") == "".join(map(dump, records)).split("---\n")
    read = yaml.load_all(printed("yaml", found, columns=columns), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert len(list(read)) == len(found)


@pytest.mark.parametrize("columns", [(), ("path",), ("pid", "path", "comm")])
def test_csv_is_what_the_library_writes_for_each_row(columns: tuple[str, ...]) -> None:
    found = hostile()
    text = printed("csv", found, columns=columns)
    names = next(csv.reader([text.splitlines()[0]]))
    expected = io.StringIO()
    writer = csv.writer(expected, lineterminator="\r\n")
    lines = [",".join(names)]
    for one in MemberRows(columns).records(found):
        expected.seek(0)
        expected.truncate()
        writer.writerow([csv_cell(one.get(name), False) for name in names])
        lines.append(expected.getvalue()[:-2])
    assert text == "\n".join(lines) + "\n"
    assert len(list(csv.reader(io.StringIO(text, newline="")))) == len(found) + 1


def test_ends_of_lines_are_quoted_whatever_the_library_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.13 the library quotes only the characters of its own line ends."""

    def writer(stream: io.StringIO, lineterminator: str) -> Any:
        others = "".join(set("\r\n") - set(lineterminator))
        made = real(stream, lineterminator=lineterminator, quoting=csv.QUOTE_MINIMAL)

        def write(row: list[Any]) -> None:
            text = ",".join(map(str, row))
            stream.write(text + lineterminator) if set(others) & set(text) else made.writerow(row)

        return SimpleNamespace(writerow=write, writerows=lambda rows: list(map(write, rows)))

    real = csv.writer
    monkeypatch.setattr(csv, "writer", writer)
    for text in ("a\rb", "a\nb", "a\r\nb"):
        assert csv_line([text, "c"]) == f'"{text}",c\n'
        shown = printed("csv", rows(record(path=text.encode())), columns=("pid", "path"))
        assert f',"{text}",' in shown


def test_long_texts_are_not_kept_and_others_up_to_a_number() -> None:
    machine.yaml_string.cache_clear()
    long = "\\" * 4096
    assert yaml.safe_load(printed("yaml", rows(record(path=long.encode()))))["path"] == long
    assert 0 < machine.yaml_string.cache_info().currsize < 50
    assert machine.yaml_string.cache_info().maxsize == 50_000


def test_a_yaml_document_without_members_is_an_empty_object(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(record(), record(path_cut=True))
    every = MemberRows.members
    monkeypatch.setattr(
        MemberRows, "members", lambda self, batch: [one for one in every(self, batch) if one.name == "path_cut"]
    )
    assert list(yaml.safe_load_all(printed("yaml", found))) == [{}, {"path_cut": True}]
