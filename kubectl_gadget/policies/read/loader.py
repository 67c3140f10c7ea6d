"""`spec.loader`: an event for every executable file that a program maps, with the file's build ID.

The kernel reads build IDs for users of perf. So this is a hook at the kernel function that reports a mapping, and the
agent makes the kernel report them. The trap: the function is also called for mappings that are not executable, and for
memory without a file; the filters exclude both.
"""

from kubectl_gadget.policies.model import Argument, Hook, HookFilter, Selector, Subject
from kubectl_gadget.yaml_files import Place

_FUNCTION = "perf_event_mmap_output"
_STRUCT = "perf_mmap_event"
_EXECUTABLE = 4
"""VM_EXEC of include/linux/mm.h."""
_BUILD_ID = (("uint64", 0), ("uint64", 8), ("uint32", 16))
"""The twenty bytes of a build ID as numbers, each with its offset."""


def loader_hook(place: Place) -> Hook:
    """The hook. policy_events.event_metadata reads its arguments: the file, the build ID's size and its bytes."""
    arguments = (
        _member("file", "vma", "vm_file"),
        _member("uint32", "build_id_size"),
        *(_member(type, "build_id", start) for type, start in _BUILD_ID),
        _member("uint64", "vma", "vm_flags"),
    )
    executable = HookFilter(Subject("argument", len(arguments) - 1), "mask", (_EXECUTABLE,), place=place)
    file = HookFilter(Subject("argument"), "prefix", ("/",), place=place)
    selector = Selector(filters=(executable, file), place=place)
    return Hook("loader", _FUNCTION, arguments=arguments, selectors=(selector,), place=place)


def _member(type: str, *path: str | int) -> Argument:
    return Argument(1, type, btf_type=_STRUCT, resolve=path)
