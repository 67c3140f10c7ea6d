"""What each typedef becomes, in JSON and in a table."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.schema import Field, RecordLayout
from kubectl_gadget.linux.names import ERRNO_NAMES, errno_name, open_flag_names
from kubectl_gadget.rows.batch import Batch, decode, join
from kubectl_gadget.rows.containers import ContainerFilter, Identity
from kubectl_gadget.rows.kinds import quote
from kubectl_gadget.rows.members import filter_members, kind_of, row_members, shown
from kubectl_gadget.wire.agent_messages import ContainerChanges
from kubectl_gadget.wire.client_messages import FilterSpec
from tests.rows import records
from tests.rows.records import OPEN, column, record, ring


def member(name: str, *records: bytes, offset: int = 0) -> list[object]:
    """The JSON values of one member."""
    batch = decode(OPEN, "node-1", ring(*records))
    batch.clock_offset_ns = offset
    return filter_members(OPEN)[name].read(batch).values()


def cells(name: str, *records: bytes) -> list[str]:
    """What a table shows, before it is escaped."""
    return shown(decode(OPEN, "node-1", ring(*records)), OPEN.column(name))


def test_a_timestamp_is_rfc_3339_in_utc_with_nanoseconds() -> None:
    offset = 1_700_000_000_000_000_000
    assert member("timestamp", record(timestamp=5), offset=offset) == ["2023-11-14T22:13:20.000000005Z"]


def test_an_unknown_user_is_null_and_not_root() -> None:
    somebody = record(pid=7, comm=b"", uid=0)
    idle = record(pid=0, comm=b"swapper/0", uid=0)
    nobody = record(pid=0, comm=b"", uid=0)
    assert member("pid", somebody, idle, nobody) == [7, None, None]
    assert member("comm", somebody, idle, nobody) == ["", "swapper/0", None]
    assert member("uid", somebody, idle, nobody) == [0, 0, None]
    assert cells("comm", somebody, nobody) == ['""', "-"]
    assert cells("pid", somebody, nobody) == ["7", "-"]
    assert member("parent_comm", record(ppid=0, parent_comm=b"")) == [None]


def test_an_errno_is_a_number_with_its_linux_name_beside_it() -> None:
    assert member("errno", record(errno=2), record()) == [2, 0]
    assert member("error", record(errno=2), record(), record(errno=4000)) == ["ENOENT", "", "4000"]
    assert cells("errno", record(errno=2), record()) == ["ENOENT", "0"]


def test_errno_names_are_those_of_linux_on_every_client() -> None:
    assert [errno_name(number) for number in (11, 35, 40, 95, 110)] == [
        "EAGAIN", "EDEADLK", "ELOOP", "EOPNOTSUPP", "ETIMEDOUT",
    ]  # fmt: skip
    assert len(set(ERRNO_NAMES.values())) == len(ERRNO_NAMES)


@pytest.mark.parametrize(
    ("flags", "architecture", "names"),
    [
        (0, "x86_64", "O_RDONLY"),
        (0o2000101, "x86_64", "O_WRONLY|O_CREAT|O_CLOEXEC"),
        (0o200000, "x86_64", "O_RDONLY|O_DIRECTORY"),
        (0o200000, "aarch64", "O_RDONLY|O_DIRECT"),
        (0o40000, "aarch64", "O_RDONLY|O_DIRECTORY"),
        (0o20200002, "x86_64", "O_RDWR|O_TMPFILE"),
        (0o4010001, "x86_64", "O_WRONLY|O_SYNC"),
        (0o10001, "x86_64", "O_WRONLY|O_DSYNC"),
        (0x80000000, "x86_64", "O_RDONLY|0x80000000"),
    ],
)
def test_open_flags_are_named_as_the_nodes_architecture_numbers_them(flags: int, architecture: str, names: str) -> None:
    assert open_flag_names(flags, architecture) == names


@pytest.mark.parametrize(
    ("marks", "architecture", "abi"),
    [
        (0, "x86_64", None),
        (1, "x86_64", None),
        (2, "x86_64", "i386"),
        (3, "x86_64", "i386"),
        (6, "x86_64", "x32"),
        (2, "aarch64", "arm32"),
    ],
)
def test_a_call_that_is_not_a_64_bit_programs_has_its_abi(marks: int, architecture: str, abi: str | None) -> None:
    field = replace(OPEN.record.field("marks"), type="gadget_marks")
    batch = decode(OPEN, "node-1", ring(record(marks=marks)), architecture=architecture)
    (found,) = kind_of(field).members("abi", field)
    assert (found.read(batch).values(), found.optional) == ([abi], True)
    assert kind_of(field).show(batch, field) == [abi or "-"]


def test_flags_and_mode_have_their_raw_numbers_beside_them() -> None:
    row = record(flags=0o2000000, mode=0o644)
    assert [member(name, row)[0] for name in ("flags", "flags_raw", "mode", "mode_raw")] == [
        "O_RDONLY|O_CLOEXEC", 524288, "0644", 420,
    ]  # fmt: skip


def test_no_descriptor_is_a_dash_in_tables_and_minus_one_in_json() -> None:
    assert member("fd", record(fd=-1)) == [-1]
    assert cells("fd", record(fd=-1), record(fd=5)) == ["-", "5"]


def test_a_text_that_could_not_be_read_is_null_and_not_empty() -> None:
    assert member("path", record(path=None), record(path=b"")) == [None, ""]
    assert cells("path", record(path=None), record(path=b""), record(path=b"-")) == ["-", '""', '"-"']


def test_a_cut_text_says_so() -> None:
    assert member("path_cut", record(path=b"/abc", path_cut=True), record()) == [True, False]
    assert cells("path", record(path=b"/abc", path_cut=True), record()) == ["/abc…", "/etc/passwd"]


def test_bytes_that_are_not_utf8_are_kept_in_base64() -> None:
    row = record(path=b"/x\xff")
    assert member("path", row) == ["/x\ufffd"]
    assert member("path_bytes", row, record(path="/ä".encode())) == ["L3j/", None]


@pytest.mark.parametrize(
    ("components", "cut", "path", "cell"),
    [
        ([b"etc", b"passwd"], False, "/etc/passwd", "/etc/passwd"),
        ([], False, "/", "/"),
        ([b"lib", b"x"], True, "lib/x", "…/lib/x"),
        (None, False, None, "-"),
    ],
)
def test_a_path_is_joined_from_its_components(
    components: list[bytes] | None, cut: bool, path: str | None, cell: str
) -> None:
    row = record(resolved=components, resolved_cut=cut)
    assert member("resolved", row) == [path]
    assert cells("resolved", row) == [cell]


def test_arguments_are_a_list_and_shown_as_a_shell_reads_them() -> None:
    rows = (record(args=[b"sh", b"-c", b"echo 'a'", b""]), record(args=[]), record(args=None))
    assert member("args", *rows) == [["sh", "-c", "echo 'a'", ""], [], None]
    assert cells("args", *rows) == ["sh -c 'echo '\\''a'\\''' ''", "", "-"]


def test_a_cut_list_ends_with_an_ellipsis() -> None:
    assert cells("args", record(args=[b"ls", b"a"], args_cut=True)) == ["ls a…"]


@given(st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=0x2FF)))
def test_a_quoted_word_is_one_word_to_a_shell(word: str) -> None:
    import shlex

    assert shlex.split(quote(word)) == [word]


def test_a_comm_ends_at_its_first_nul() -> None:
    assert member("comm", record(comm=b"vi\0junk"), record(comm=b"exactly-16-bytes")) == ["vi", "exactly-16-bytes"]


def test_members_come_with_the_timestamp_first_and_then_as_the_columns() -> None:
    names = [item.name for item in row_members(OPEN) if not item.optional]
    assert names == [
        "timestamp", "node", "namespace", "pod", "container", "pid", "comm", "fd", "errno", "error", "path", "uid",
        "flags", "flags_raw", "mode", "mode_raw", "resolved", "args", "tid", "parent_comm", "image",
    ]  # fmt: skip


# Records of two parties: the sender and the receiver of a signal.


COLUMNS = (column("pod"), column("receiver_pod", field="receiver.pod"), column("receiver_kind", field="receiver.node"))
SIGNAL = replace(
    records.OPEN,
    record=RecordLayout("signal", records.SIZE, (*records.FIELDS[:16], Field("receiver", 104, 8, "gadget_cgroup"))),
    columns=COLUMNS,
)


def batch(*pairs: tuple[int, int], node: str = "node-1") -> Batch:
    """One row per sender's and receiver's cgroup, of which 7 is xwing and 8 is yard."""
    made = [records.record(cgroup=sender)[:104] + receiver.to_bytes(8, "little") for sender, receiver in pairs]
    identity = Identity(node)
    containers = [{"id": name, "namespace": space, "pod": name} for name, space in (("xwing", "a"), ("yard", "b"))]
    identity.apply(
        ContainerChanges.from_json({"containers": containers, "cgroups": {"7": "xwing", "8": "yard", "9": None}}), 0.0
    )
    decoded = decode(SIGNAL, node, records.ring(*made))
    decoded.name_owners(identity.lookup)
    return decoded


def test_a_column_of_a_second_party_has_its_names() -> None:
    rows = batch((7, 8), (8, 7), (7, 9))
    assert shown(rows, COLUMNS[0]) == ["xwing", "yard", "xwing"]
    assert shown(rows, COLUMNS[1]) == ["yard", "xwing", "-"]
    assert [member.name for member in row_members(SIGNAL)] == ["pod", "receiver_pod", "receiver_kind"]
    assert row_members(SIGNAL)[1].read(rows).values() == ["yard", "xwing", ""]


def test_selected_and_joined_rows_keep_both_parties() -> None:
    rows = join([batch((7, 8), (8, 7)).select([1]), batch((7, 9), (9, 8), node="node-2")])  # type: ignore[arg-type]
    assert shown(rows, COLUMNS[0]) == ["yard", "xwing", "-"]
    assert shown(rows, COLUMNS[1]) == ["xwing", "-", "yard"]
    assert shown(rows, COLUMNS[2]) == ["node-1", "node-2", "node-2"]


def test_a_row_is_wanted_when_one_of_its_parties_is() -> None:
    rows = batch((7, 8), (8, 7), (7, 9), (8, 9), (9, 9))
    only_a = ContainerFilter(FilterSpec(namespaces=("a",)))
    assert rows.judged(lambda _node: only_a.wanted).tolist() == [1, 1, 1, 0, 0]


def test_an_absent_receiver_makes_no_row_wanted() -> None:
    assert batch((9, 0), (7, 0)).judged(lambda _node: ContainerFilter(FilterSpec()).wanted).tolist() == [0, 1]
