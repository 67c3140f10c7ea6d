"""One line for each event, in the shapes that readers of security events know:

    🚀 process default/xwing /usr/bin/vi /etc/passwd

An emoji, a word padded to 7 characters, the owner, the program, and the object. Details that these shapes hide can be
requested (line_options.py) and are appended. The trap: the observed programs choose file names and arguments, so each
of these is one word, quoted where necessary: none can be confused with the other words of the line.
"""

from collections.abc import Callable, Sequence

from kubectl_gadget.linux.processes import capability_name
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, ProcessEvent
from kubectl_gadget.observe.printing.line_options import SHOWN, LineOptions
from kubectl_gadget.observe.printing.line_shapes import quoted, shape
from kubectl_gadget.observe.process import Process
from kubectl_gadget.observe.row import ending
from kubectl_gadget.observe.story import StoryEvent
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.tables import text_width
from kubectl_gadget.output.terminal import RED, paint, pod_color
from kubectl_gadget.wire.policy_events.body import rfc3339
from kubectl_gadget.wire.policy_events.event import PolicyEvent, StackEntry
from kubectl_gadget.wire.policy_events.policy_record import done_text

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


def line(entry: StoryEvent, options: LineOptions = _PLAIN) -> str:
    """The line, without a line end. Stacks follow on lines of their own."""
    emoji, word, parts, after = _shape(entry)
    source = source_of(entry)
    painted = paint(source, pod_color(source)) if options.color else source
    text = f"{emoji} {word:<{_WORD_WIDTH}} {painted} {quoted(entry.process.name)}"
    text += "".join(f" {part}" for part in parts if part)
    text += _blocked(entry, options)
    if options.timestamps:
        text = f"{rfc3339(entry.time)} {text}"
    found = [_EXTRAS[name](entry) for name in SHOWN if name in options.shown and name in _EXTRAS]
    text += "".join(f" {extra}" for extra in found if extra)
    if entry.late:
        text += " (late)"
    if "admin" in options.shown and _is_admin(entry):
        text += " " * max(1, _ADMIN_COLUMN - text_width(text)) + f"🛑 {capability_name(_SYS_ADMIN)}"
    return text + (after if options.stacks else "")


def action(entry: StoryEvent) -> str:
    """The same without owner and program: `📝 write /etc/passwd 1275 bytes`."""
    emoji, word, parts, _ = _shape(entry)
    return " ".join([emoji, word, *filter(None, parts)]) + _blocked(entry, _PLAIN)


def command_text(process: Process) -> str:
    """Binary and arguments, safe to print."""
    return f"{quoted(process.name)} {_arguments(process)}".rstrip()


def _arguments(process: Process) -> str:
    return " ".join(quoted(arg) or '""' for arg in process.args) + ("…" if process.args_cut else "")


def source_of(entry: StoryEvent) -> str:
    """`namespace/pod`, or the node for processes of the host."""
    container = entry.container
    return quoted(f"{container.namespace}/{container.pod}" if container.pod else entry.node)


def _shape(entry: StoryEvent) -> tuple[str, str, Sequence[str], str]:
    """Emoji, word, the parts that follow the binary, and the lines that follow."""
    happening = entry.happening
    if isinstance(happening, ProcessEvent):
        arguments = _arguments(entry.process)
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


def _blocked(entry: StoryEvent, options: LineOptions) -> str:
    happening = entry.happening
    if not isinstance(happening, PolicyEvent) or not (happening.blocked or happening.verdict or happening.would_be):
        return ""
    done = done_text(happening.blocked, happening.verdict)
    text = f" WOULD BE {happening.would_be}" if happening.would_be else f" {done}"
    return paint(text, RED) if options.color else text


def _is_admin(entry: StoryEvent) -> bool:
    """Whether the thread has an administrator's rights."""
    credentials = entry.credentials
    return credentials is not None and bool(credentials.effective >> _SYS_ADMIN & 1)


def _policy_extra(entry: StoryEvent) -> str:
    happening = entry.happening
    if not isinstance(happening, PolicyEvent):
        return ""
    texts = (("policy", happening.policy), ("action", happening.action), ("message", happening.message))
    return " ".join(f"{name}={quoted(text)}" for name, text in texts if text)


def _file_extra(entry: StoryEvent) -> str:
    happening = entry.happening
    if isinstance(happening, FileEvent):
        return f"file-id={happening.file_id:x}"
    return f"file-id={happening.file_id}" if isinstance(happening, PolicyEvent) and happening.file_id else ""


_EXTRAS: dict[str, Callable[[StoryEvent], str]] = {
    "pid": lambda entry: f"pid={entry.process.id.pid}",
    "parent": lambda entry: f"parent={entry.process.parent_id.pid if entry.process.parent_id else '-'}",
    "node": lambda entry: f"node={quoted(entry.node)}",
    "container": lambda entry: f"container={quoted(entry.container.container) or '-'}",
    "uid": lambda entry: f"uid={entry.credentials.uid}" if entry.credentials else "",
    "policy": _policy_extra,
    "exec-id": lambda entry: f"exec-id={entry.process.id.text(entry.node)}",
    "file-id": _file_extra,
    "flow-id": lambda entry: (
        f"flow-id={entry.happening.flow_id}" if isinstance(entry.happening, ConnectionEvent) else ""
    ),
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
