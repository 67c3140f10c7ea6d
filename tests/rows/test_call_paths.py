"""Paths of calls from rows with stacks."""

from kubectl_gadget.output.profiles import PathStep, samples, unit_of
from kubectl_gadget.rows.stacks import LOST, CallFrame, number_of
from tests.output.sampled import PROFILE, batch, profile, stack


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
