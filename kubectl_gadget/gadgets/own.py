"""A user's own gadget: a folder with NAME.yaml and NAME.bpf.c, which is built into its subfolder `built`.

With clang it is compiled when something changed; without clang, the content of `built` is used as it is, so that a
gadget can be passed on to people who have no compiler. The trap: the C is the user's, so every error here refers to the
user's file and is never reported as an internal error.
"""

from pathlib import Path

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.compiler import INSTALL, find_clang
from kubectl_gadget.gadgets.consistency import check_readable
from kubectl_gadget.gadgets.gadget import build_gadget, schema_path
from kubectl_gadget.gadgets.inputs import Inputs
from kubectl_gadget.gadgets.load import ARCHITECTURES, read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.gadgets.single_file import is_single_file, load_single_file


def load_own(path: Path) -> tuple[Gadget, Path]:
    """The gadget in the folder or file `path`, and the directory to pass to object_bytes.

    Compiles it for both architectures when clang is installed and something changed. Raises UsageError when `path` is
    not a gadget, does not compile, or would have to be compiled without clang.
    """
    if is_single_file(path):
        return load_single_file(path)
    description = _description(path)
    name = description.stem
    built = description.parent / "built"
    source = description.parent / f"{name}.bpf.c"
    if source.is_file() and find_clang() is not None:
        _build(description, source, built)
    elif not schema_path(built, name).is_file():
        if source.is_file():
            raise UsageError(f"{path} was not built, and there is no clang to build it", INSTALL)
        raise UsageError(f"{path}: its program {source.name} is missing")
    schema = schema_path(built, name)
    gadget = read_gadget(schema)
    check_readable(gadget, str(schema))
    return gadget, built


def _build(description: Path, source: Path, built: Path) -> None:
    try:
        built.mkdir(exist_ok=True)
        build_gadget(description, source, built, ARCHITECTURES, Inputs(built))
    except OSError as error:
        raise UsageError(f"{description} cannot be built into {built}: {error.strerror}") from None


def _description(path: Path) -> Path:
    if path.is_file():
        if path.suffix == ".c":
            path = path.parent / f"{path.name.removesuffix('.c').removesuffix('.bpf')}.yaml"
        if path.suffix not in (".yaml", ".yml"):
            raise UsageError(f"{path} is not a gadget; expected a directory, a C file or a YAML file")
        return path
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or directory")
    found = sorted(path.glob("*.yaml"))
    if len(found) != 1:
        names = ", ".join(item.name for item in found) or "none"
        raise UsageError(f"{path}: expected one YAML file, found {names}", f"kubectl gadget run {path}/NAME.yaml")
    return found[0]
