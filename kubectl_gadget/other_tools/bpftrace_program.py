"""Limits a bpftrace program to chosen pods: each probe's predicate also tests the current task's cgroup.

    tracepoint:syscalls:sys_enter_openat /pid > 9/ { … }
    tracepoint:syscalls:sys_enter_openat /@pods_1a2b3c[cgroup] && (pid > 9)/ { … }

The agents keep the map up to date (agent/other_tools.py). Lines stay where they are, so that the positions in
bpftrace's errors match the user's program. A probe without a meaningful current task must be refused; otherwise it
would report whichever task was interrupted.
"""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from kubectl_gadget.errors import UsageError
from kubectl_gadget.wording import meant

_PROVIDERS = {
    **{"kprobe": "k", "kretprobe": "kr", "uprobe": "u", "uretprobe": "ur", "usdt": "U", "tracepoint": "t"},
    **{"rawtracepoint": "rt", "fentry": "f", "fexit": "fr", "profile": "p", "software": "s", "hardware": "h"},
    **{"watchpoint": "w", "asyncwatchpoint": "aw", "kfunc": "kfunc", "kretfunc": "kretfunc"},
}
"""Providers whose probes run in the context of a task, with the short form of each."""
_WITHOUT_TASK = {"BEGIN", "END", "begin", "end", "interval", "i", "self"}
"""These run once or by timer and concern no process; they stay unchanged."""
_ITERATORS = {"iter", "it"}
_IN_INTERRUPTS = (
    *("irq:*", "irq_vectors:*", "napi:*", "timer:*", "rcu:*", "workqueue:*", "writeback:*", "thermal:*", "mce:*"),
    *("block:block_rq_complete", "block:block_rq_error", "block:block_bio_complete", "skb:*", "power:cpu_*"),
    *("net:netif_receive_skb", "net:netif_receive_skb_entry", "net:netif_rx", "net:napi_gro_receive_entry"),
    *("tcp:tcp_probe", "tcp:tcp_receive_reset", "scsi:scsi_dispatch_cmd_done", "nvme:nvme_complete_rq"),
)
"""Tracepoints that fire while any task runs, which need not be the one that caused them."""
_WHOLE_NODE = "--host, which shows the whole node"

_PATH = re.compile(r":(?:\\.|[-\w./#+$*])*", re.ASCII)
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_END_OF_PREDICATE = re.compile(r"/\s*\{")
_OTHER_BLOCKS = {"struct", "union", "enum", "config", "fn", "macro"}
"""Keywords beside probes that start a block."""
_STATEMENTS = {"let", "import"}
"""Keywords that start a statement, which ends at a semicolon."""


class Probe(NamedTuple):
    """The position of one probe in the text."""

    points: list[tuple[int, str]]
    """its attach points with their positions"""
    predicate: tuple[int, int] | None
    """between the slashes"""
    block: int
    """position of its opening brace"""


def limited(program: str, map_name: str, file: str = "program") -> str:
    """Returns the program limited to pods whose cgroups are keys of the map `map_name`. Raises UsageError, with line
    and column, when that is impossible."""
    text, position = "", 0
    for probe in Scanner(program, file).probes():
        if not _looks_at_a_task(probe, program, file):
            continue
        test = f"@{map_name}[cgroup]"
        if probe.predicate is None:
            text += f"{program[position : probe.block]}/{test}/ "
            position = probe.block
        else:
            begin, end = probe.predicate
            text += f"{program[position:begin]}{test} && ({program[begin:end]})"
            position = end
    # A cgroup made inside a container is added to the map before anything runs in it; an agent would be too slow for
    # that.
    heir = (
        f"rawtracepoint:cgroup_mkdir {{ $c = (struct cgroup *)arg0; if ($c->root->hierarchy_id == 0 && "
        f"@{map_name}[$c->self.parent->cgroup->kn->id]) {{ @{map_name}[$c->kn->id] = 1; }} }}"
    )
    gone = (
        f"rawtracepoint:cgroup_rmdir {{ $c = (struct cgroup *)arg0; if ($c->root->hierarchy_id == 0 && "
        f"@{map_name}[$c->kn->id]) {{ delete(@{map_name}[$c->kn->id]); }} }}"
    )
    return f"{text}{program[position:]}\n{heir}\n{gone}\n"


def _looks_at_a_task(probe: Probe, program: str, file: str) -> bool:
    """True if the probe has a current task. Raises UsageError when its events cannot be attributed to a task."""
    found = [_has_task(place, point, program, file) for place, point in probe.points]
    if len(set(found)) > 1:
        what = "this list has probes with and without a current process, so it cannot be limited to pods"
        raise _error(program, probe.points[0][0], file, what, f"one block for each, or {_WHOLE_NODE}")
    return found[0]


def _has_task(place: int, point: str, program: str, file: str) -> bool:
    provider, _, rest = point.partition(":")
    if provider in _WITHOUT_TASK:
        return False
    if provider in _ITERATORS:
        what = f"{point} iterates over objects of the whole node and has no current process"
        raise _error(program, place, file, f"{what}, so it cannot be limited to pods", _WHOLE_NODE)
    if provider not in _PROVIDERS and provider not in _PROVIDERS.values():
        near = meant(provider, [*_PROVIDERS, *_WITHOUT_TASK, *_ITERATORS], most=1)
        raise _error(program, place, file, f"unknown kind of probe {provider!r}{near}", _WHOLE_NODE)
    if provider in ("tracepoint", "t"):
        hit = next((one for one in _IN_INTERRUPTS if fnmatchcase(one, rest) or fnmatchcase(rest, one)), None)
        if hit is not None:
            which = point if fnmatchcase(rest, hit) else f"{point} includes {hit}, which"
            what = f"{which} happens in interrupts and kernel threads, where the current process is not the cause"
            raise _error(program, place, file, f"{what}, so it cannot be limited to pods", _WHOLE_NODE)
    return True


class Scanner:
    """Finds the probes of a program. Raises UsageError where it cannot parse the text."""

    def __init__(self, program: str, file: str) -> None:
        self._text, self._file = program, file
        self._at = 0

    def probes(self) -> list[Probe]:
        found = []
        while self._skip_blanks(top=True):
            word = _WORD.match(self._text, self._at)
            if word and word[0] in _OTHER_BLOCKS and not self._text.startswith(":", word.end()):
                self._skip_to("{")
                self._skip_block()
                if self._skip_blanks(top=True) and self._text[self._at] == ";":
                    self._at += 1
            elif word and word[0] in _STATEMENTS:
                self._skip_to(";")
                self._at += 1
            else:
                found.append(self._probe())
        if not found:
            raise self._wrong(
                "the program has no probe", "'tracepoint:syscalls:sys_enter_openat { printf(\"%s\\n\", comm); }'"
            )
        return found

    def _probe(self) -> Probe:
        points = [self._point()]
        while self._text[self._at] == ",":
            self._at += 1
            points.append(self._point())
        predicate = self._predicate() if self._text[self._at] == "/" else None
        block = self._at
        self._skip_block()
        return Probe(points, predicate, block)

    def _point(self) -> tuple[int, str]:
        """Returns one attach point. Stops at the comma, slash or brace after it."""
        text, begin, found = self._text, None, ""
        while self._skip_blanks():
            begin = self._at if begin is None else begin
            char = text[self._at]
            if char in ",/{":
                break
            if path := _PATH.match(text, self._at):
                end = path.end()
            elif char == '"':
                end = self._end_of_string()
            elif re.match(r"[\w.+*\[\]$?-]", char):
                end = self._at + 1
            else:
                raise self._wrong(
                    f"expected the name of a probe, not {char!r}", "a space before the slash of a predicate"
                )
            found += text[self._at : end]
            self._at = end
        if self._at >= len(text):
            raise self._wrong("the block of the last probe is missing", '{ printf("%s\\n", comm); }')
        if not found or begin is None:
            raise self._wrong("a probe is missing here")
        return begin, found

    def _predicate(self) -> tuple[int, int]:
        begin = self._at + 1
        self._at = begin
        for char in self._walk():
            if char == "/" and _END_OF_PREDICATE.match(self._text, self._at):
                end = self._at
                self._at += 1
                self._skip_blanks()
                return begin, end
        self._at = begin - 1
        raise self._wrong("this predicate is not closed", "/ before the { of its block")

    def _skip_block(self) -> None:
        """Skips from an opening brace to the position after the matching closing one."""
        begin, depth = self._at, 0
        for char in self._walk():
            depth += {"{": 1, "}": -1}.get(char, 0)
            if depth == 0:
                self._at += 1
                return
        self._at = begin
        raise self._wrong("this block is not closed", "a } for each {")

    def _skip_to(self, char: str) -> None:
        begin = self._at
        if char not in self._walk():
            self._at = begin
            raise self._wrong(f"there is no {char} after this")

    def _walk(self) -> Iterator[str]:
        """Yields each character outside of blanks, comments and texts, and the first one of a text."""
        while self._skip_blanks():
            yield self._text[self._at]
            self._at = self._end_of_string() if self._text[self._at] == '"' else self._at + 1

    def _skip_blanks(self, top: bool = False) -> bool:
        """Skips spaces and comments, and with `top` also preprocessor lines. Returns whether anything follows."""
        text = self._text
        while self._at < len(text):
            if text[self._at].isspace():
                self._at += 1
            elif text.startswith("//", self._at) or (top and text[self._at] == "#"):
                self._at = text.find("\n", self._at) + 1 or len(text)
            elif text.startswith("/*", self._at):
                end = text.find("*/", self._at + 2)
                if end < 0:
                    raise self._wrong("this comment is not closed", "*/")
                self._at = end + 2
            else:
                return True
        return False

    def _end_of_string(self) -> int:
        at = self._at + 1
        while at < len(self._text) and self._text[at] != "\n":
            if self._text[at] == '"':
                return at + 1
            at += 2 if self._text[at] == "\\" else 1
        raise self._wrong("this text is not closed", '"')

    def _wrong(self, what: str, remedy: str | None = None) -> UsageError:
        return _error(self._text, self._at, self._file, what, remedy)


def _error(program: str, place: int, file: str, what: str, remedy: str | None) -> UsageError:
    before = program[:place].split("\n")
    return UsageError(f"{file}:{len(before)}:{len(before[-1]) + 1}: {what}", remedy)
