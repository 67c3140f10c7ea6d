"""Profiles for other tools; pprof's are read back by Google's own library."""

import gzip
import io
import json
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.profiles import PathStep, read_folded, samples, unit_of
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.stacks import LOST, UNKNOWN, CallFrame, CutOff, number_of
from tests.output.sampled import PROFILE, batch, profile, stack, written
from tests.rows.test_tables import TOP

KERNEL = number_of((CallFrame("vfs_read", "", ""),))


def rows(max_rows: int | None = None) -> Any:
    return profile(
        batch("n1", "web", ("work", stack("spin", "heavy"), 0, 3), ("work", stack("a;b\n", "heavy"), KERNEL, 1)),
        batch("n2", "", ("sh", stack("spin", "light"), 0, 2)),
        max_rows=max_rows,
    )


def text_of(format: str, max_rows: int | None = None) -> str:
    stream = io.StringIO()
    written(make_sink(OutputOptions(format), [PROFILE], stream), rows(max_rows), stream)
    return stream.getvalue()


def test_folded_lines_have_all_rows_whatever_a_table_leaves_out() -> None:
    assert text_of("folded", max_rows=1).splitlines() == [
        "n1;default/web/main;work;heavy;a:b\\n;vfs_read_[k] 10000000",
        "n1;default/web/main;work;heavy;spin 30000000",
        "n2;host;sh;light;spin 20000000",
    ]


def test_a_profile_with_many_stacks_that_are_cut_off_says_so() -> None:
    cut_off = number_of((CallFrame("spin", "/bin/work", ""), CallFrame(UNKNOWN, "", "")))
    found = CutOff()
    found.add(batch("n1", "web", ("work", stack("spin", "heavy"), KERNEL, 95), ("work", cut_off, 0, 5)))
    assert found.hint() == ""
    found.add(batch("n1", "web", ("work", cut_off, 0, 1), ("idle", 0, KERNEL, 900), ("lost", LOST, 0, 900)))
    assert found.hint() == "at least 6% of this profile lacks callers, which could not be followed, mostly in work"


def test_folded_lines_are_read_back() -> None:
    assert read_folded(text_of("folded"))["n2;host;sh;light;spin"] == 20_000_000
    assert read_folded("a 1\na 2\n\n") == {"a": 3}
    for broken in ("nothing", "a b"):
        with pytest.raises(ValueError, match=r"weight|invalid"):
            read_folded(broken)


def test_speedscope_has_a_profile_per_container() -> None:
    whole = json.loads(text_of("speedscope"))
    frames = [frame["name"] for frame in whole["shared"]["frames"]]
    found = {
        item["name"]: [
            ([frames[place] for place in sample], weight)
            for sample, weight in zip(item["samples"], item["weights"], strict=True)
        ]
        for item in whole["profiles"]
    }
    assert found["n2 host"] == [(["sh", "light", "spin"], 20_000_000)]
    assert sorted(found["n1 default/web/main"])[1] == (["work", "heavy", "spin"], 30_000_000)
    assert {(item["type"], item["unit"]) for item in whole["profiles"]} == {("sampled", "nanoseconds")}
    assert [item["endValue"] for item in whole["profiles"]] == [40_000_000, 20_000_000]


def test_pprof_is_what_googles_library_reads() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw)
    written(make_sink(OutputOptions("pprof"), [PROFILE], stream), rows(), stream)
    message = profile_message()()
    message.ParseFromString(gzip.decompress(raw.getvalue()))
    texts = list(message.string_table)
    functions = {function.id: texts[function.name] for function in message.function}
    names = {place.id: functions[place.line[0].function_id] for place in message.location}
    assert texts[0] == ""
    assert [(texts[item.type], texts[item.unit]) for item in message.sample_type] == [
        ("samples", "count"),
        ("cpu_time", "nanoseconds"),
    ]
    found = {}
    for sample in message.sample:
        labels = {texts[label.key]: texts[label.str] or label.num for label in sample.label}
        found[tuple(names[place] for place in sample.location_id)] = list(sample.value), labels
    assert found["spin", "heavy"] == (
        [3, 30_000_000],
        {"node": "n1", "namespace": "default", "pod": "web", "container": "main", "comm": "work", "pid": 77},
    )
    assert found["vfs_read", "a;b\n", "heavy"][0] == [1, 10_000_000]
    assert found["spin", "light"][1] == {"node": "n2", "comm": "sh", "pid": 77}
    assert [texts[mapping.filename] for mapping in message.mapping] == ["/bin/work"]
    assert texts[message.default_sample_type] == "cpu_time"


def test_profiles_are_of_gadgets_with_stacks_only() -> None:
    for format in ("folded", "speedscope", "pprof"):
        with pytest.raises(UsageError, match="call stacks"):
            make_sink(OutputOptions(format), [TOP], io.StringIO())


_FIELDS: dict[str, list[tuple[str, int, str]]] = {
    "ValueType": [("type", 1, "int64"), ("unit", 2, "int64")],
    "Label": [("key", 1, "int64"), ("str", 2, "int64"), ("num", 3, "int64")],
    "Sample": [("location_id", 1, "*uint64"), ("value", 2, "*int64"), ("label", 3, "*Label")],
    "Mapping": [("id", 1, "uint64"), ("filename", 5, "int64"), ("has_functions", 7, "bool")],
    "Line": [("function_id", 1, "uint64")],
    "Location": [("id", 1, "uint64"), ("mapping_id", 2, "uint64"), ("line", 4, "*Line")],
    "Function": [("id", 1, "uint64"), ("name", 2, "int64"), ("system_name", 3, "int64"), ("filename", 4, "int64")],
    "Profile": [
        ("sample_type", 1, "*ValueType"),
        ("sample", 2, "*Sample"),
        ("mapping", 3, "*Mapping"),
        ("location", 4, "*Location"),
        ("function", 5, "*Function"),
        ("string_table", 6, "*string"),
        ("time_nanos", 9, "int64"),
        ("default_sample_type", 14, "int64"),
    ],
}
"""Of profile.proto, as far as it is written."""


def profile_message() -> Any:
    """The class of the message Profile."""
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="test", syntax="proto3")
    for message, fields in _FIELDS.items():
        made = file.message_type.add(name=message)
        for name, number, type in fields:
            field = made.field.add(name=name, number=number, label=3 if type.startswith("*") else 1)
            kind = type.removeprefix("*")
            if kind in _FIELDS:
                field.type, field.type_name = 11, f".test.{kind}"
            else:
                field.type = {"int64": 3, "uint64": 4, "bool": 8, "string": 9}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Profile"))


# Paths of calls from rows with stacks.


def test_a_path_goes_from_node_and_container_through_the_program_into_the_kernel() -> None:
    kernel = number_of((CallFrame("vfs_read", "", ""), CallFrame("do_syscall_64", "", "")))
    (sample,) = samples(profile(batch("n1", "web", ("worker", stack("read", "main"), kernel, 3))), PROFILE)
    assert [(call.title, call.kind) for call in sample.path] == [
        ("n1", "place"),
        ("default/web/main", "place"),
        ("worker", "place"),
        ("main", "user"),
        ("read", "user"),
        ("do_syscall_64", "kernel"),
        ("vfs_read", "kernel"),
    ]
    assert (sample.pid, sample.values) == (77, (3, 30_000_000))


def test_what_runs_in_no_container_is_the_hosts_and_a_lost_stack_is_reported_to_be_lost() -> None:
    (sample,) = samples(profile(batch("n1", "", ("sh", LOST, 0, 1))), PROFILE)
    assert [call.title for call in sample.path] == ["n1", "host", "sh", "[lost]"]


def test_places_in_a_file_without_symbols_are_one() -> None:
    unknown = number_of((CallFrame("[unknown]", "/bin/work", "0x12"),))
    (sample,) = samples(profile(batch("n1", "", ("sh", unknown, 0, 1))), PROFILE)
    assert sample.calls == (PathStep("[work]", "unknown", "/bin/work"),)


def test_rows_of_the_same_stack_are_added_up_over_processes_of_nothing_else() -> None:
    same = stack("spin", "main")
    block = profile(batch("n1", "web", ("a", same, 0, 3), ("a", same, 0, 4), ("b", same, 0, 1)))
    assert sorted(sample.values[0] for sample in samples(block, PROFILE)) == [1, 7]


def test_units_come_from_the_fields_type() -> None:
    assert unit_of(PROFILE, "cpu_time") == "nanoseconds"
    assert unit_of(PROFILE, "samples") == "count"
