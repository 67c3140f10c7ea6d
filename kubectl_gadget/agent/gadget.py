"""One gadget of a session: choose programs, load, attach, count, detach.

Of each entry of RUN's `programs` the first set that this kernel loads and attaches is taken. The trap: one refused
program fails its whole object, so after a refusal the object is opened anew with the next set.
"""

import time
from collections.abc import Callable
from typing import Any

from kubectl_gadget.agent.answers import recorder
from kubectl_gadget.agent.answers.answer import Answer
from kubectl_gadget.agent.answers.client_tables import Tables
from kubectl_gadget.agent.answers.iterators import Snapshot
from kubectl_gadget.agent.answers.map_walks import MapWalks
from kubectl_gadget.agent.answers.network_refusals import MAP as REFUSALS
from kubectl_gadget.agent.answers.recorder import Recorder
from kubectl_gadget.agent.answers.samplers import Sampled
from kubectl_gadget.agent.answers.totals import Totals
from kubectl_gadget.agent.bpf import counters, features, libbpf, refusal
from kubectl_gadget.agent.bpf.counters import CpuCounters
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import MAP_ITERATOR, BpfObject, variable_bytes
from kubectl_gadget.agent.bpf.ring import Ring, open_ring
from kubectl_gadget.agent.bpf.syscall_programs import COMPAT, VARIABLE, Calls, SyscallObject, follow_compat_calls
from kubectl_gadget.agent.containers import descendants
from kubectl_gadget.agent.containers.ring_fairness import Losses
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.symbols.stacks import Stacks, Symbols
from kubectl_gadget.agent.symbols.uprobes import Uprobes
from kubectl_gadget.errors import AgentError

KINDS = ("stream", "snapshot", "top", "recorder", "policy", "installed")
"""Of gadgets: what HELLO says that this agent can do."""
DEFAULT_RING_BYTES = 4 << 20
OWN = ("gadget_node_agent", "gadget_node_client")
"""Variables for the numbers of processes that are left out."""
_FREQUENCY = "gadget_frequency"
"""The variable that says how often a program for perf events runs."""
_MOST_OFTEN = 10_000
_MOST_RING_BYTES = 32 << 20
"""A whole ring has to fit into one EVENTS frame."""


class Entry:
    """One entry of RUN's `programs`: alternatives, and which of them was refused why."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.sets: list[list[str]] = value["any_of"]
        self.optional = bool(value.get("optional"))
        self.purpose = str(value.get("purpose") or "")
        """what is not seen without it"""
        self.aside = bool(value.get("aside"))
        """that is said with STARTED alone, and in no warning"""
        self.next = 0
        self.skipped: list[dict[str, str]] = []

    @property
    def programs(self) -> list[str]:
        return self.sets[self.next] if self.next < len(self.sets) else []

    def refuse(self, program: str, why: str) -> None:
        self.skipped.append({"program": program, "why": why})
        self.next += 1


class Gadget:
    """`spec` is one of RUN's `gadgets`; `node` the values of variables that begin with gadget_node_."""

    def __init__(
        self, index: int, spec: dict[str, Any], elf: bytes, node: dict[str, int], shared: dict[str, int]
    ) -> None:
        self.index = index
        self.name: str = spec["name"]
        self.sequence = 0
        self.warnings: list[str] = []
        self.answer: Answer | None = None
        """of a gadget that is no stream"""
        self._spec = spec
        self._elf = elf
        self._node = node
        self._shared = shared
        self._entries = [Entry(value) for value in spec.get("programs") or []]
        self._object: BpfObject
        self._walks: MapWalks
        self.ring: Ring
        self.counters: CpuCounters
        self.ring_fd = -1
        self.wanted_cgroup: Callable[[str], bool] = lambda path: True
        """whether uprobes may matter to processes of that cgroup, as /proc/PID/cgroup has its path"""
        self.symbols = Symbols()
        """shared by the gadgets of a session"""
        self.stacks: Stacks | None = None
        self.refusals: Callable[[], int | None] = lambda: None
        """gives the session's map of what other agents refuse; None where there is none"""
        self.descendants: Callable[[int], int] = lambda pid: -1
        """gives the session's map of a process and its descendants"""
        self.calls: Calls | None = None
        """shared by the gadgets of a session, too; None: it loads its own"""
        self.containers: Containers | None = None
        """for gadgets with a sampler, and to name who lost events"""
        self._losses: Losses
        self._uprobes: Uprobes | None = None
        self._tables: Tables | None = None
        self._recorded_bytes = 0
        self._refused_calls = False

    def start(self) -> None:
        """Loads and attaches. Raises AgentError when nothing that is needed can."""
        while not self._try():
            pass
        self._follow_compat_calls()
        self._elf = b""

    def started(self) -> dict[str, Any]:
        """As in the STARTED frame."""
        entries = self._entries
        chosen = [(entry.programs, entry.skipped) for entry in entries] or [(self._object.chosen, [])]
        programs = [
            {"chosen": names, "hooks": [self._object.hook(name) for name in names], "skipped": skipped}
            for names, skipped in chosen
        ]
        return {"name": self.name, "programs": programs}

    def program_fds(self) -> dict[str, int]:
        """File descriptors of the programs that were loaded. They end with the gadget."""
        found = {program: self._object.program_fd(program) for program in self._object.chosen}
        if copy := self._object.copy:
            found |= {f"{program} (32-bit calls)": copy.program_fd(program) for program in copy.chosen}
        return found

    def stats(self) -> dict[str, Any]:
        """As in the STATS frame: counts since the start."""
        cpus = self.counters
        lost: dict[str, dict[str, int]] = {
            "ring_full": cpus.by_cpu(counters.LOST_RING_FULL),
            "map_full": cpus.by_cpu(counters.LOST_MAP_FULL),
        }
        if missed := self._object.missed():
            lost["recursion"] = {"all": missed}
        return {
            "events": cpus.total(counters.EVENTS),
            "bytes": cpus.total(counters.BYTES),
            "lost": {cause: by_cpu for cause, by_cpu in lost.items() if by_cpu},
            "cut_strings": cpus.total(counters.CUT_STRINGS),
            "lost_by": self._losses.told(self.containers.shares) if lost.get("ring_full") and self.containers else [],
        }

    def react(self) -> None:
        """Gadgets only tell."""

    def finish(self) -> None:
        """Nothing was begun about events."""

    def detach(self) -> None:
        """No event comes after this; what the ring holds can still be read."""
        if self.answer:
            self.answer.ending()
        if self._uprobes:
            self._uprobes.close()
            self.warnings += self._uprobes.warnings
        if self.answer:
            self._object.detach()
            self.answer.end()
        else:
            self._walks.detach()

    def turn(self) -> list[str]:
        """To be called often while the session runs: follows the processes' libraries. Warnings to be told."""
        if self.answer:
            self.answer.keep_up(time.monotonic())
        else:
            self._walks.turn(time.monotonic())
        if self._uprobes is None:
            return []
        self._uprobes.turn()
        warnings, self._uprobes.warnings = self._uprobes.warnings, []
        return warnings

    def update(self, value: dict[str, Any]) -> None:
        """UPDATE, for this gadget."""
        if self.containers is None:
            raise AgentError(f"gadget {self.name} has no containers to keep tables of")
        if self._tables is None:
            self._tables = Tables(self.name, self._object, self.containers)
        self._tables.update(value)

    def close(self) -> None:
        self._close_rings()
        self._object.close()
        if self._uprobes:
            self._uprobes.free()

    def _close_rings(self) -> None:
        if self.answer:
            self.answer.close()
            self.answer = None
        if self.ring_fd >= 0:
            self.ring.close()
            self.counters.close()
            self._losses.close()
            self.ring_fd = -1

    def _try(self) -> bool:
        """One attempt with the present choice. False: a program was refused, and the choice is another now."""
        wanted = [name for entry in self._entries for name in entry.programs] if self._entries else None
        try:
            object = self._open(wanted)
        except Failure as failure:
            raise refusal.refused(f"gadget {self.name}", failure) from None
        program = None
        libraries = self._spec.get("libraries")
        named = bool(self._spec.get("named"))
        uprobes = Uprobes(object, libraries, self.wanted_cgroup, named) if libraries else None
        try:
            object.frequency = self._frequency()
            self._prepare(object)
            if uprobes:
                uprobes.prepare()
            object.load()
            self._open_ring(object)
            self._open_answer(object)
            for program in object.chosen:
                object.attach(program)
                section = object.section(program)
                if section.startswith("iter") and section != MAP_ITERATOR and self._spec.get("kind") != "snapshot":
                    object.iterate(program)
            if stacks := object.map("gadget_stacks"):
                self.stacks = Stacks(stacks, self.symbols, bool(self._spec.get("stack_offsets", True)))
        except Failure as failure:
            program = program or refusal.failed_program(failure.log)
            section = object.section(program) if program in object.program_names else ""
            self._close_rings()
            object.close()
            self._refused(program, failure, features.lacking(section.partition("/")[0]))
            return False
        except BaseException:
            self._close_rings()
            object.close()
            raise
        self._object = object
        self._walks = MapWalks(object)
        self._uprobes = uprobes
        if uprobes:
            uprobes.turn()
        return True

    def _open(self, wanted: list[str] | None) -> BpfObject:
        """Raw tracepoints run the programs that follow system calls: they also see those of 32-bit programs."""
        if COMPAT in (self._spec.get("globals") or {}) and not self._refused_calls:
            self._node = self._node | {VARIABLE: 1}
        if not self._node.get(VARIABLE):
            return BpfObject(self._elf, self.name, wanted)
        object = SyscallObject(self._elf, self.name, wanted, self.calls)
        try:
            if object.follows:
                object.calls.open()
        except Failure as failure:
            object.close()
            self._refused_calls = True
            self._lack_compat_calls(failure)
            self._node = self._node | {VARIABLE: int(not features.syscall_tracepoints())}
            return BpfObject(self._elf, self.name, wanted)
        return object

    def _follow_compat_calls(self) -> None:
        try:
            follow_compat_calls(self._object, self._elf, self.name, self._set_variables)
        except Failure as failure:
            self._lack_compat_calls(failure)

    def _lack_compat_calls(self, failure: Failure) -> None:
        why, _ = refusal.reason(failure)
        self.warnings.append(f"{self.name}: system calls of 32-bit programs and by int 0x80 are not seen ({why})")

    def _frequency(self) -> int:
        frequency = (self._spec.get("parameters") or {}).get(_FREQUENCY, 1)
        if not isinstance(frequency, int) or not 1 <= frequency <= _MOST_OFTEN:
            what = f"gadget {self.name}: {frequency} samples a second are not possible"
            raise AgentError(what, f"1 to {_MOST_OFTEN}, such as 99")
        return frequency

    def _prepare(self, object: BpfObject) -> None:
        known = object.program_names
        for entry in self._entries:
            for name in entry.programs:
                if name not in known:
                    raise AgentError(f"gadget {self.name}: the object has no program {name}; it has {', '.join(known)}")
        self._set_variables(object)
        if events := object.map("gadget_events"):
            events.resize(ring_bytes(self._spec.get("ring_bytes") or DEFAULT_RING_BYTES))
        if cpus := object.map("gadget_cpus"):
            cpus.resize(libbpf.load().call("libbpf_num_possible_cpus"))
        if self._spec.get("kind") == "recorder":
            self._recorded_bytes = recorder.prepare(object, self._spec["recorder"])
        if entries := self._spec.get("map_entries"):
            object.resize_hashes(entries)
        object.reuse(self._shared)
        parameters = self._spec.get("parameters") or {}
        if parameters.get(descendants.PARAMETER) and (chosen := object.map(descendants.MAP)):
            chosen.reuse(self.descendants(parameters.get(descendants.PID) or 0))
        if (refusals := object.map(REFUSALS)) and (fd := self.refusals()) is not None:
            refusals.reuse(fd)

    def _set_variables(self, object: BpfObject) -> None:
        variables: dict[str, dict[str, int]] = self._spec.get("globals") or {}
        size = ring_bytes(self._spec.get("ring_bytes") or DEFAULT_RING_BYTES)
        node = self._node | {"gadget_ring_wake_bytes": size // 4}
        values = {name: value for name, value in node.items() if name in variables}
        parameters = self._spec.get("parameters") or {}
        if (chosen := parameters.get(descendants.PID)) and chosen in [values.get(name) for name in OWN]:
            values |= dict.fromkeys(values.keys() & set(OWN), 0)  # it was asked for by its number
        for name, value in (parameters | values).items():
            if name not in variables:
                raise AgentError(f"gadget {self.name} has no parameter {name}")
            place = variables[name]
            try:
                object.set_variable(place["offset"], variable_bytes(value, place["size"]))
            except (ValueError, OverflowError, UnicodeError) as error:
                raise AgentError(f"gadget {self.name}: parameter {name} cannot be {value!r}: {error}") from None

    def _open_ring(self, object: BpfObject) -> None:
        events, cpus = object.map("gadget_events"), object.map("gadget_cpus")
        if events is None or cpus is None:
            raise AgentError(
                f"gadget {self.name}: the object lacks the map gadget_events or gadget_cpus",
                "include gadget/output.h (docs/writing-gadgets.md)",
            )
        self.counters = CpuCounters(cpus.fd, cpus.entries)
        self.ring = open_ring(events.fd, events.entries, self.counters)
        self._losses = Losses(object.map("gadget_shares"))
        self.ring_fd = events.fd

    def _open_answer(self, object: BpfObject) -> None:
        sampled = Sampled(self._spec, self.containers) if self.containers and self._spec.get("sampler") else None
        match self._spec.get("kind", "stream"):
            case "stream":
                return
            case "snapshot":
                self.answer = Snapshot(object, sampled)
            case "recorder":
                self.answer = Recorder(object, self.ring, self._spec["recorder"], self._recorded_bytes)
            case "top":
                self.answer = Totals(object, self._spec["interval_ms"] / 1000, self._spec["record_bytes"], sampled)
            case kind:
                what = f"gadget {self.name}: this agent knows no gadgets of kind {kind!r}"
                raise AgentError(what, "update the agents")

    def _refused(self, program: str | None, failure: Failure, lacking: str | None) -> None:
        entry = next((entry for entry in self._entries if program in entry.programs), None)
        why, remedy = (lacking, None) if lacking else refusal.reason(failure)
        if entry is None or program is None:
            raise refusal.refused(f"gadget {self.name}", failure)
        last = entry.next + 1 == len(entry.sets)
        if last and not entry.optional:
            others = "".join(f"\n{skip['program']} was tried before: {skip['why']}" for skip in entry.skipped)
            error = refusal.refused(f"gadget {self.name} (program {program})", failure, lacking)
            raise AgentError(f"{error}{others}", error.remedy)
        entry.refuse(program, "\n".join(part for part in (why, remedy) if part))
        if last and not entry.aside:
            lacks = f"{entry.purpose} ({program}: " if entry.purpose else f"runs without {program} ("
            self.warnings.append(f"{self.name}: {lacks}{why})")


def ring_bytes(wanted: object) -> int:
    """The ring's size for `wanted` bytes: the next power of two of at least a page. Raises AgentError."""
    if not isinstance(wanted, int) or not 0 < wanted <= _MOST_RING_BYTES:
        raise AgentError(f"a ring of {wanted!r} bytes is not possible", f"1 to {_MOST_RING_BYTES} bytes")
    return int(max(4096, 1 << (wanted - 1).bit_length()))
