"""Types of the kernel are declared once, in bpf/include/kernel/.

Two declarations of one struct compile as long as no program includes both, and then differ in their members.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from kubectl_gadget.gadgets.load import BUILT

BPF = Path(__file__).parents[2] / "bpf"
KERNEL = BPF / "include" / "kernel"


def sources() -> list[Path]:
    return [path for path in sorted(BPF.rglob("*")) if path.suffix in (".c", ".h")]


def test_programs_declare_no_types_of_the_kernel() -> None:
    found = [
        str(path.relative_to(BPF))
        for path in sources()
        if KERNEL not in path.parents and "preserve_access_index" in path.read_text()
    ]
    assert not found, f"types of the kernel belong in bpf/include/kernel/, not in {', '.join(found)}"


def test_each_type_of_the_kernel_is_declared_once() -> None:
    declared = Counter(
        (kind, name)
        for path in sorted(KERNEL.glob("*.h"))
        for kind, name in re.findall(r"^(struct|enum|union) (\w+) \{", without_other_architectures(path), re.MULTILINE)
    )
    assert len(declared) > 100
    assert not [name for name, times in declared.items() if times > 1]


def without_other_architectures(path: Path) -> str:
    """The text of a header as x86 sees it."""
    return re.sub(r"^#el(?:if|se).*?^#endif", "#endif", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_no_program_declares_a_type_that_the_kernel_headers_have() -> None:
    kernel = {
        name.partition("___")[0]
        for path in KERNEL.glob("*.h")
        for name in re.findall(r"^(?:struct|enum) (\w+) \{", path.read_text(), re.MULTILINE)
    }
    again = [
        f"{path.relative_to(BPF)}: {name}"
        for path in sources()
        if KERNEL not in path.parents
        for name in re.findall(r"^(?:struct|enum) (\w+) \{", path.read_text(), re.MULTILINE)
        if name.partition("___")[0] in kernel
    ]
    assert not again


@pytest.mark.compiled
@pytest.mark.usefixtures("catalogue_built")
def test_no_object_contains_the_names_of_all_the_kernels_functions() -> None:
    """They were a third of the types of all objects; see gadget/helpers.h."""
    objects = sorted((BUILT / "objects" / "x86_64").glob("*.o"))
    assert objects
    assert [path.name for path in objects if b"BPF_FUNC_map_lookup_elem\0" in path.read_bytes()] == []
