"""Values as users type them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.cli import values
from kubectl_gadget.cli.values import (
    buffer_size,
    commas,
    count,
    duration,
    duration_above_zero,
    duration_in,
    duration_or_none,
    duration_text,
    format_of,
    integer_of,
    namespace,
    node_names,
    node_selector,
    one_of,
    pod_names,
    ring_size,
    size,
    size_text,
    text_of,
    whole_number,
    words_of,
)
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import ROWS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), (".5m", 30), ("300ms", 0.3), ("10", 10), ("0", 0)],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1x", "1h30", "1 s", "½s", "٣s", "inf", "nan", "1e3", "+1s", "1m-1s"])
def test_a_text_that_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


def test_a_negative_duration_is_refused_with_its_reason() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        duration("-5s")


def test_a_duration_of_more_than_a_year_is_refused() -> None:
    with pytest.raises(ValueError, match="year"):
        duration("99999h")


def test_zero_is_refused_where_it_would_end_the_run_at_once() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        duration_above_zero("0s")


def test_zero_means_no_limit_for_requests_as_with_kubectl() -> None:
    assert duration_or_none("0") is None
    assert duration_or_none("5s") == 5


@pytest.mark.parametrize(
    ("text", "unit", "units"),
    [("10ms", "us", 10_000), ("1.5s", "ms", 1500), ("2m", "s", 120), ("250", "us", 250), ("0", "ms", 0)],
)
def test_a_gadgets_duration_is_a_number_of_its_units(text: str, unit: str, units: int) -> None:
    assert duration_in(unit, 8)(text) == units


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1.5", "has no unit; write 1.5s"),
        ("1500us", "not a whole number of ms"),
        ("-5ms", "negative"),
        ("soon", "not a duration"),
        ("", "not a duration"),
        ("2000h", "at most 4294967295ms"),
    ],
)
def test_a_text_that_is_not_a_number_of_units_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        duration_in("ms", 4)(text)


@given(st.integers(0, 1 << 31), st.sampled_from(["ns", "us", "ms", "s"]))
def test_a_gadgets_duration_is_read_back_as_it_is_shown(value: int, unit: str) -> None:
    if unit == "s":
        value %= 30_000_000
    assert duration_in(unit, 8)(duration_text(value, unit)) == value


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, millis: int) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + millis / 1000
    assert duration(f"{hours}h{minutes}m{seconds}s{millis}ms") == pytest.approx(expected)


@given(st.text())
def test_any_text_is_a_duration_or_refused_with_a_value_error(text: str) -> None:
    try:
        seconds = duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= values.LONGEST_SECONDS
    assert re.search(r"[0-9]", text)


@pytest.mark.parametrize(
    ("text", "expected"), [("4Mi", 4 << 20), ("512Ki", 512 << 10), ("4M", 4_000_000), ("1Gi", 1 << 30), ("7", 7)]
)
def test_sizes_are_read_as_kubernetes_writes_them(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "Mi", "4Xi", "-4Mi", "4 Mi", "1e6"])
def test_a_text_that_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size"):
        size(text)


@given(st.integers(0, 1 << 40))
def test_a_size_that_was_written_is_read_back(value: int) -> None:
    assert size(size_text(value)) == value


@given(st.integers(16, 30))
def test_every_power_of_two_in_range_is_a_ring(exponent: int) -> None:
    assert ring_size(size_text(1 << exponent)) == 1 << exponent


@pytest.mark.parametrize(
    ("reader", "least", "most"), [(values.port, 1, 65_535), (values.map_entries, 1, values.MOST_ENTRIES)]
)
def test_a_number_that_no_kernel_takes_is_refused(reader: Callable[[str], int], least: int, most: int) -> None:
    assert (reader(str(least)), reader(str(most))) == (least, most)
    for number in (least - 1, most + 1, 10**30):
        with pytest.raises(ValueError, match="must be"):
            reader(str(number))


def test_a_ring_size_that_is_not_a_power_of_two_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match="nearest are 4Mi and 8Mi"):
        ring_size("5Mi")


@pytest.mark.parametrize("text", ["4Ki", "2Gi", "0"])
def test_a_ring_that_no_kernel_or_node_takes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="between 64Ki and 1Gi"):
        ring_size(text)


def test_a_buffer_that_holds_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1Mi"):
        buffer_size("1Ki")


@pytest.mark.parametrize("text", ["0", "-3"])
def test_a_count_below_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        count(text)


def test_numbers_may_be_hexadecimal_and_nothing_else() -> None:
    assert whole_number("0x1F") == 31
    for text in ("1.5", "", "0b1", "ten"):
        with pytest.raises(ValueError, match="whole number"):
            whole_number(text)


def test_a_number_must_fit_into_its_variable() -> None:
    assert integer_of(2)("65535") == 65535
    for text in ("65536", "-1"):
        with pytest.raises(ValueError, match="between 0 and 65535"):
            integer_of(2)(text)
    assert integer_of(2, signed=True)("-32768") == -32768
    with pytest.raises(ValueError, match="between -32768 and 32767"):
        integer_of(2, signed=True)("32768")


def test_a_text_must_fit_into_its_variable_in_bytes() -> None:
    assert text_of(4)("abc") == "abc"
    with pytest.raises(ValueError, match="3 bytes"):
        text_of(4)("aé€")


@pytest.mark.parametrize("text", [*ROWS.names[:-2], "jsonpath={.pod}", "custom-columns=POD:.pod"])
def test_every_output_format_is_taken(text: str) -> None:
    assert format_of(ROWS)(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("jsno", "did you mean json"),
        ("JSON", "did you mean json"),
        ("jsonpath", "needs a template"),
        ("custom-columns=", "needs a template"),
        ("json=x", "takes no template"),
        ("go-template={{.}}", "must be one of"),
        ("", "must be one of"),
    ],
)
def test_other_output_formats_are_refused_with_their_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        format_of(ROWS)(text)


def test_a_choice_in_the_wrong_case_is_corrected() -> None:
    with pytest.raises(ValueError, match="did you mean Always"):
        one_of("Always", "Never")("always")


def test_lists_may_use_commas_or_repetition_and_lose_doubles() -> None:
    assert commas(["a,b", "c", "a"]) == ("a", "b", "c")


def test_an_empty_name_in_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="empty name"):
        commas(["a,,b"])


def test_names_may_have_their_kind_before_a_slash() -> None:
    assert pod_names(["pod/xwing", "tie.fighter"]) == ("xwing", "tie.fighter")
    assert node_names(["node/a,b"]) == ("a", "b")
    assert namespace("ns/default") == "default"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("deploy/web", "deployment/web"),
        ("deployments.apps/web", "deployment/web"),
        ("deployment.v1.apps/web", "deployment/web"),
        ("rs/web-5d4f", "replicaset/web-5d4f"),
        ("sts/db", "statefulset/db"),
        ("DS/agent", "daemonset/agent"),
        ("job/import", "job/import"),
        ("jobs.batch/import", "job/import"),
        ("cj/backup", "cronjob/backup"),
        ("svc/web", "service/web"),
        ("rc/old", "replicationcontroller/old"),
        ("po/xwing", "xwing"),
    ],
)
def test_a_workload_is_named_by_its_kind_as_kubectl_takes_it(text: str, target: str) -> None:
    assert pod_names([text]) == (target,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("deplo/web", r"unknown kind 'deplo'; kinds are pod, deployment, .*did you mean deploy"),
        ("deployment.batch/web", "unknown kind"),
        ("node/a", "use --node a"),
        ("ns/shop", "use -n shop"),
        ("deploy/Web", "not a valid deployment name"),
        ("svc/", "not a valid service name"),
        ("a/deploy/web", "not the name of a pod"),
    ],
)
def test_what_has_no_pods_is_refused_with_what_was_meant(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        pod_names([text])


@pytest.mark.parametrize("text", ["/etc", "Xwing", "a b", "", "-x", "pod/"])
def test_what_cannot_be_a_pod_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        pod_names(["good", text])


@pytest.mark.parametrize("text", ["tcp port 80", 'comm == "nginx"'])
def test_a_condition_in_place_of_a_pod_is_answered_with_the_flags_for_conditions(text: str) -> None:
    with pytest.raises(ValueError, match="conditions need a flag: --filter, or --pcap"):
        pod_names([text])


def test_several_namespaces_are_refused_with_the_way_that_works() -> None:
    with pytest.raises(ValueError, match="-A with --filter"):
        namespace("a,b")


def test_node_labels_are_pairs() -> None:
    assert node_selector(["disk=ssd,zone=", "disk=hdd"]) == (("disk", "hdd"), ("zone", ""))
    for text in ("disk", "disk!=ssd", "=ssd", "disk==ssd"):
        with pytest.raises(ValueError, match="not key=value"):
            node_selector([text])


def test_words_are_those_that_there_are_or_all() -> None:
    read = words_of(("file_open", "task_kill"))
    assert [read(text) for text in ("all", "file_open", "task_kill, file_open")] == [
        *("all", "file_open", "task_kill, file_open")
    ]
    with pytest.raises(ValueError, match=r"'file_opn' is not one of all, file_open, task_kill; did you mean file_open"):
        read("task_kill,file_opn")


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        ("signal", "SIGTERM", 15),
        ("signal", "kill", 9),
        ("signal", "35", 35),
        ("capability", "CAP_SYS_ADMIN", 21),
        ("capability", "net_raw", 13),
        ("errno", "ENOENT", 2),
    ],
)
def test_a_number_may_be_given_by_its_name(kind: str, text: str, number: int) -> None:
    assert values.number_of(kind)(text) == number


@pytest.mark.parametrize(("kind", "text"), [("signal", "0"), ("signal", "99"), ("capability", "64"), ("errno", "5000")])
def test_a_number_that_has_no_name_is_refused_with_those_that_have(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"invalid {kind} number"):
        values.number_of(kind)(text)


def test_a_name_that_does_not_exist_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match="SIGTERM"):
        values.number_of("signal")("SIGTEMR")


def test_an_address_is_one_of_ipv4_or_ipv6() -> None:
    assert [values.ip(text) for text in ("10.0.0.7", "2001:DB8::1")] == ["10.0.0.7", "2001:db8::1"]
    with pytest.raises(ValueError, match=r"10\.0\.0"):
        values.ip("10.0.0")


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        (
            ["libc:malloc", "SSL_read"],
            "'SSL_read' has no file; write functions as FILE:SYMBOL",
            "libNAME:SSL_read",
        ),
        (["free_Hugepages"], "'free_Hugepages' has no file", "/path/in/the/container:free_Hugepages"),
        (["get_Nprocs", "xwing"], "has no file", ":get_Nprocs"),
    ],
)
def test_a_function_without_its_file_says_how_to_name_it(words: list[str], what: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.functions_and_pods(words)
    assert what in str(caught.value)
    assert remedy in str(caught.value.remedy)


def test_a_function_of_libc_is_found_there() -> None:
    assert values.function_without_file("getaddrinfo").remedy == "libc:getaddrinfo"
    remedy = values.function_without_file("web-1").remedy
    assert remedy == "FILE:SYMBOL before the pods, such as libc:getaddrinfo web-1"
    assert values.functions_and_pods(["libc:getaddrinfo", "web-1"]) == ("libc:getaddrinfo", "web-1")


@pytest.mark.parametrize(
    "text", ["registry.example", "registry.example:5000/ghcr/", "localhost:5000", "10.0.0.7/a/b-c"]
)
def test_a_registry_is_written_as_in_names_of_images(text: str) -> None:
    assert values.registry(text) == text.rstrip("/")


@pytest.mark.parametrize("text", ["", "https://a.example", "a b", "-a", "a//b"])
def test_a_text_that_is_not_a_registry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is a URL|is not a registry"):
        values.registry(text)


@pytest.mark.parametrize(
    "text", ["/no/such/folder", "", "ftp://files.example", "http://", "https://x.example/?a=b", "http://[::1"]
)
def test_a_place_of_debug_files_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"folder nor a URL|is not a URL|Invalid"):
        values.debuginfo(text)


def test_a_place_of_debug_files_is_a_folder_or_a_url(tmp_path: Path) -> None:
    for text in (str(tmp_path), "https://debuginfod.debian.net", "http://127.0.0.1:8002/path/"):
        assert values.debuginfo(text) == text
