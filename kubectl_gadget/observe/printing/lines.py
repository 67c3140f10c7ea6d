"""One line for each event, in the shapes that readers of security events know:

    🚀 process default/xwing /usr/bin/vi /etc/passwd

An emoji, a word padded to 7 characters, the owner, the program, and the object. Details that these shapes hide can be
requested (line_options.py) and are appended. The trap: the observed programs choose file names and arguments, so each
of these is one word, quoted where necessary: none can be confused with the other words of the line.
"""

from collections.abc import Callable, Sequence

from kubectl_gadget.events.linux.process_constants import capability_name
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, ProcessEvent
from kubectl_gadget.observe.printing.line_options import SHOWN, LineOptions
from kubectl_gadget.observe.printing.line_shapes import quoted, shape
from kubectl_gadget.observe.process import Process
from kubectl_gadget.observe.row import ending
from kubectl_gadget.observe.story import StoryEvent
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.tables.widths import text_width
from kubectl_gadget.output.terminal import RED, paint, pod_color
from kubectl_gadget.policy_events.body import rfc3339
from kubectl_gadget.policy_events.event import PolicyEvent, StackEntry
from kubectl_gadget.policy_events.record import done_text

_WORD_WIDTH = 7
_ADMIN_COLUMN = 120
_SYS_ADMIN = 21
_OPERATIONS = {
    "open": ("📬", "open"),
    "is open": ("📬", "is open"),
    "read": ("📚", "read"),
    "write": ("📝", "write"),
    "truncate": ("📝", "truncate"),
    "close": ("📪", "close"),
}

_CONNECTIONS = {"connect": "🔌", "accept": "📞", "close": "🧹", "dns": "📖"}

_PLAIN = LineOptions()


def line(told: StoryEvent, options: LineOptions = _PLAIN) -> str:
    """The line, without a line end. Stacks follow on lines of their own."""
    emoji, word, parts, after = _shape(told)
    source = source_of(told)
    painted = paint(source, pod_color(source)) if options.color else source
    text = f"{emoji} {word:<{_WORD_WIDTH}} {painted} {quoted(told.process.name)}"
    text += "".join(f" {part}" for part in parts if part)
    text += _blocked(told, options)
    if options.timestamps:
        text = f"{rfc3339(told.time)} {text}"
    text += _extras(told, options)
    if told.late:
        text += " (late)"
    if "admin" in options.shown and _is_admin(told):
        text += " " * max(1, _ADMIN_COLUMN - text_width(text)) + f"🛑 {capability_name(_SYS_ADMIN)}"
    return text + (after if options.stacks else "")


def action(told: StoryEvent) -> str:
    """The same without owner and program: `📝 write /etc/passwd 1275 bytes`."""
    emoji, word, parts, _ = _shape(told)
    return " ".join([emoji, word, *filter(None, parts)]) + _blocked(told, _PLAIN)


def command_text(process: Process) -> str:
    """Binary and arguments, safe to print."""
    return f"{quoted(process.name)} {_arguments(process)}".rstrip()


def _arguments(process: Process) -> str:
    return " ".join(quoted(arg) or '""' for arg in process.args) + ("…" if process.args_cut else "")


def source_of(told: StoryEvent) -> str:
    """`namespace/pod`, or the node for processes of the host."""
    container = told.container
    return quoted(f"{container.namespace}/{container.pod}" if container.pod else told.node)


def _shape(told: StoryEvent) -> tuple[str, str, Sequence[str], str]:
    """Emoji, word, the parts that follow the binary, and the lines that follow."""
    happening = told.happening
    if isinstance(happening, ProcessEvent):
        arguments = _arguments(told.process)
        if happening.operation == "exit":
            return "💥", "exit", (arguments, ending(happening)), ""
        return "🚀", "process", (arguments,), ""
    if isinstance(happening, FileEvent):
        emoji, word = _OPERATIONS.get(happening.operation, ("📝", happening.operation))
        if happening.operation == "mmap":
            return emoji, f"mmap-{happening.protection.replace('-', '')}", (quoted(happening.path) or "-",), ""
        amount = "" if happening.bytes is None else f"{happening.bytes} bytes"
        return emoji, word, (quoted(happening.path) or "-", amount), ""
    if isinstance(happening, ConnectionEvent):
        emoji = _CONNECTIONS[happening.operation]
        amounts = "" if happening.sent is None else f"{happening.sent} out, {happening.received} in"
        return emoji, happening.operation, (escape(happening.what), amounts), ""
    return (*shape(happening), _stacks(happening))


def _blocked(told: StoryEvent, options: LineOptions) -> str:
    happening = told.happening
    if not isinstance(happening, PolicyEvent) or not (happening.blocked or happening.verdict or happening.would_be):
        return ""
    done = done_text(happening.blocked, happening.verdict)
    text = f" WOULD BE {happening.would_be}" if happening.would_be else f" {done}"
    return paint(text, RED) if options.color else text


def _extras(told: StoryEvent, options: LineOptions) -> str:
    found = [_EXTRAS[name](told) for name in SHOWN if name in options.shown and name in _EXTRAS]
    return "".join(f" {extra}" for extra in found if extra)


def _is_admin(told: StoryEvent) -> bool:
    """Whether the thread has an administrator's rights."""
    credentials = told.credentials
    return credentials is not None and bool(credentials.effective >> _SYS_ADMIN & 1)


def _policy_extra(told: StoryEvent) -> str:
    happening = told.happening
    if not isinstance(happening, PolicyEvent):
        return ""
    texts = (("policy", happening.policy), ("action", happening.action), ("message", happening.message))
    return " ".join(f"{name}={quoted(text)}" for name, text in texts if text)


def _file_extra(told: StoryEvent) -> str:
    happening = told.happening
    if isinstance(happening, FileEvent):
        return f"file-id={happening.file_id:x}"
    return f"file-id={happening.file_id}" if isinstance(happening, PolicyEvent) and happening.file_id else ""


_EXTRAS: dict[str, Callable[[StoryEvent], str]] = {
    "pid": lambda told: f"pid={told.process.id.pid}",
    "parent": lambda told: f"parent={told.process.parent_id.pid if told.process.parent_id else '-'}",
    "node": lambda told: f"node={quoted(told.node)}",
    "container": lambda told: f"container={quoted(told.container.container) or '-'}",
    "uid": lambda told: f"uid={told.credentials.uid}" if told.credentials else "",
    "policy": _policy_extra,
    "exec-id": lambda told: f"exec-id={told.process.id.text(told.node)}",
    "file-id": _file_extra,
    "flow-id": lambda told: f"flow-id={told.happening.flow_id}" if isinstance(told.happening, ConnectionEvent) else "",
}


def _stacks(event: PolicyEvent) -> str:
    return _stack("Kernel:", event.kernel_stack) + _stack("User:", event.user_stack)


def _stack(title: str, frames: Sequence[StackEntry]) -> str:
    if not frames:
        return ""
    return f"\n{title}" + "".join(f"\n   {_frame(frame)}" for frame in frames)


def _frame(frame: StackEntry) -> str:
    if not frame.symbol and not frame.address:
        return escape(frame.module or "-")
    name = f"{frame.symbol}+0x{frame.offset:x}" if frame.symbol else f"0x{frame.address:x}"
    return escape(f"{name} ({frame.module})" if frame.module else name)
