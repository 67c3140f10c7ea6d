"""Maps each typedef of docs/design/records.md to its kind (KINDS).

The kinds of texts, files and single gadgets are in their own modules. A field whose typedef has no entry is shown by
its C type. The trap: names from the YAML or from a C enum take precedence over the typedef.
"""

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.linux.network import family_name, icmp_type_name, protocol_name, tcp_flag_names, tcp_state_name
from kubectl_gadget.linux.processes import (
    SIGNAL_NAMES,
    capability_name,
    capability_names,
    capability_summary,
    namespace_kind_names,
    namespace_names,
    signal_name,
)
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.absent_processes import ids, pids
from kubectl_gadget.rows.columns.file_kinds import FILE_KINDS
from kubectl_gadget.rows.columns.gadget_kinds import GADGET_KINDS
from kubectl_gadget.rows.columns.histogram import BUCKETS_TYPE, Buckets, spark_line
from kubectl_gadget.rows.columns.kind import (
    ENUM,
    FLAGS,
    NUMBER,
    UNREAD,
    Kind,
    Member,
    coded,
    known,
    known_numbers,
    maybe,
    single,
    spelt_with_raw,
    text_kind,
)
from kubectl_gadget.rows.columns.rounded_amounts import bytes_text, duration_text
from kubectl_gadget.rows.columns.stack_columns import STACK, innermost_functions, show_stacks, stack_lists
from kubectl_gadget.rows.columns.text_kinds import FIXED_TEXT, TEXT_KINDS, addresses
from kubectl_gadget.rows.columns.texts import CodedTexts, Texts
from kubectl_gadget.rows.columns.wall_time import Timestamps
from kubectl_gadget.rows.exec_id_field import read_exec_id
from kubectl_gadget.rows.vectors import Booleans, SomeNumbers


def _capabilities(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, capability_names)


def _exec_ids(batch: Batch, field: Field) -> Texts:
    def spell() -> list[str | None]:
        found = [read_exec_id(raw) for raw in batch.raw(field).tolist()]
        return [item and item.text(node) for item, node in zip(found, batch.nodes(), strict=True)]

    return Texts(spell, len(batch))


def _timestamps(batch: Batch, field: Field) -> Timestamps:
    return Timestamps(batch.to_wall(batch.raw(field)))


KINDS: dict[str, Kind] = {
    **TEXT_KINDS,
    **FILE_KINDS,
    **GADGET_KINDS,
    "gadget_timestamp": single("text", _timestamps, lambda batch, field: _timestamps(batch, field).clock()),
    "gadget_cgroup": NUMBER,
    "gadget_pid": maybe(pids),
    "gadget_uid": maybe(ids),
    "gadget_gid": maybe(ids),
    "gadget_signal": spelt_with_raw(signal_name, none="-", names=SIGNAL_NAMES),
    "gadget_capability": spelt_with_raw(capability_name),
    "gadget_capabilities": Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: _capabilities(batch, field)),
            Member(f"{column}_raw", "int", lambda batch: known_numbers(batch, field)),
        ),
        lambda batch, field: [text or UNREAD for text in coded(batch, field, capability_summary).texts()],
    ),
    "gadget_namespaces": spelt_with_raw(namespace_names, none="-"),
    "gadget_namespace_kinds": spelt_with_raw(namespace_kind_names, none="-"),
    "gadget_duration": known(duration_text),
    "gadget_bytes": known(bytes_text),
    "gadget_number": known(str),
    BUCKETS_TYPE: single(
        "buckets",
        lambda batch, field: Buckets(batch.raw(field)),
        lambda batch, field: list(map(spark_line, batch.raw(field))),
    ),
    "gadget_offset": known(str),
    "gadget_ip": Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: batch.vector(column, lambda batch: addresses(batch, field))),
        ),
        lambda batch, field: [text or "-" for text in addresses(batch, field).texts()],
    ),
    "gadget_port": NUMBER,
    "gadget_exec_id": text_kind(_exec_ids),
    "gadget_address_family": spelt_with_raw(family_name),
    "gadget_ip_protocol": spelt_with_raw(protocol_name),
    "gadget_icmp_type": spelt_with_raw(icmp_type_name),
    "gadget_tcp_state": spelt_with_raw(tcp_state_name),
    "gadget_tcp_flags": spelt_with_raw(tcp_flag_names),
    "gadget_tcp_sequence": maybe(lambda batch, field: SomeNumbers(batch.raw(field), batch.raw(field) != 0)),
    STACK: single("texts", stack_lists, show_stacks),
    "gadget_innermost": text_kind(lambda batch, field: innermost_functions(batch)),
    "bool": single(
        "bool",
        lambda batch, field: Booleans(batch.raw(field) != 0),
        lambda batch, field: ["true" if value else "false" for value in batch.raw(field).tolist()],
    ),
}
KINDS["_Bool"] = KINDS["bool"]


def kind_of(field: Field) -> Kind:
    """The kind of a field: by names from the YAML or a C enum, else by its typedef, else by its C type.

    By C type, an array of chars is a text and anything else is a number.
    """
    if field.flags:
        return FLAGS
    found = KINDS.get(field.type)
    if found is not None:
        return found
    if field.values:
        return ENUM
    return NUMBER if field.size in (1, 2, 4, 8) and not field.type.startswith("char") else FIXED_TEXT
