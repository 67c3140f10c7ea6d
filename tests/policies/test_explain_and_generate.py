# ruff: noqa: E501
"""Fields explained from the schema, and policies that are written to begin with."""

import subprocess
from pathlib import Path

import pytest
import yaml

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.policies import writing
from kubectl_gadget.policies.language import POLICY
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.policies.writing import explain_field, find_field
from kubectl_gadget.yaml_files import SchemaField


def read(spec: dict[str, object]) -> Policy:
    return parse_policies([("p", writing.policy_text("p", spec))], "default")[0]


def every_field(field: SchemaField, path: str = "") -> list[str]:
    inner = [found for each in field.fields for found in every_field(each, f"{path}.{each.name}".lstrip("."))]
    return [path, *inner]


def test_every_field_is_explained() -> None:
    for path in every_field(POLICY):
        assert find_field(path)[0].description.endswith(".")
        assert "DESCRIPTION:" in explain_field(path)


def test_spec_may_be_left_out() -> None:
    assert find_field("kprobes.call")[1] == find_field("TracingPolicy.spec.kprobes.call")[1] == "spec.kprobes.call"


def test_a_field_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"spec\.kprobes has no field 'selector'; did you mean selectors"):
        find_field("kprobes.selector")


def test_a_field_that_is_elsewhere_is_named_with_where_it_is() -> None:
    with pytest.raises(
        UsageError, match=r"spec has no field 'matchArgs'; there is spec\.kprobes\.selectors\.matchArgs"
    ):
        find_field("matchArgs")
    with pytest.raises(UsageError, match=r"kprobes has no field 'argsig'; .*selectors\.matchActions\.argSig"):
        find_field("kprobes.argsig")


def test_a_value_is_found_where_it_can_stand() -> None:
    with pytest.raises(UsageError, match=r"'Sigkill'; it is a value of spec\.kprobes\.selectors\.matchActions\.action"):
        find_field("Sigkill")


def test_a_type_is_explained_with_its_operators() -> None:
    text = explain_field("kprobes.args.type", 200)
    assert "sockaddr\n" in text
    assert "Operators: SAddr, NotSAddr, SPort, NotSPort, SPortPriv, NotSPortPriv, Family" in text


def test_an_empty_policy_and_a_list_of_functions_are_policies() -> None:
    assert read(writing.empty()).hooks[0].target == "security_file_open"
    generated = read(writing.ftrace_list("^vfs_", ["/bin/cat"])).hooks[0].generated
    assert generated is not None
    assert generated.pattern == "^vfs_"
    with pytest.raises(UsageError, match="not a valid regular expression"):
        writing.ftrace_list("(", [])


def test_all_system_calls_are_one_hook() -> None:
    (hook,) = read(writing.all_system_calls(["/bin/cat"])).hooks
    assert len(hook.selectors[0].filters[0].values) > 350


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A small program with two USDT notes, made by the assembler alone."""
    source = tmp_path / "probes.c"
    source.write_text(
        """
        #define NOTE(name, arguments) __asm__ volatile( \\
            "990: nop\\n.pushsection .note.stapsdt,\\"?\\",\\"note\\"\\n.balign 4\\n.4byte 992f-991f, 994f-993f, 3\\n" \\
            "991: .asciz \\"stapsdt\\"\\n992: .balign 4\\n993: .8byte 990b, 0, 0\\n.asciz \\"shop\\"\\n.asciz \\"" name "\\"\\n" \\
            ".asciz \\"" arguments "\\"\\n994: .balign 4\\n.popsection\\n")
        int sell(int many) { NOTE("sold", "-4@%edi 8@%rax"); return many; }
        int main(void) { NOTE("begins", ""); return sell(3); }
        """
    )
    subprocess.run(["gcc", "-o", tmp_path / "program", source], check=True)
    return tmp_path / "program"


def test_functions_of_a_program_become_uprobes(program: Path) -> None:
    hooks = read(writing.uprobes(str(program))).hooks
    assert {"main", "sell"} <= {hook.probe.symbol for hook in hooks if hook.probe}


def test_usdt_probes_come_with_their_arguments(program: Path) -> None:
    hooks = read(writing.usdts(str(program))).hooks
    found = {hook.probe.name: [argument.type for argument in hook.arguments] for hook in hooks if hook.probe}
    assert found == {"sold": ["int32", "uint64"], "begins": []}


def test_a_file_without_probes_is_named(tmp_path: Path, program: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    with pytest.raises(GadgetError, match="is not a readable ELF file"):
        writing.uprobes(str(text))
    with pytest.raises(UsageError, match="No such file"):
        writing.usdts(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="has no USDT probes"):
        writing.usdts("/bin/true")
    with pytest.raises(UsageError, match="is not an absolute path"):
        writing.usdts("program")
    assert yaml.safe_load(writing.policy_text("a", writing.empty()))["metadata"] == {"name": "a"}
