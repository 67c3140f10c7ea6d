"""The programs of one gadget: how they are chosen, loaded and attached, and what is set in its object before.

For each entry of RUN's `programs`, the first set that this kernel loads and attaches is used. The trap: one refused
program fails its whole object, so after a refusal the object is opened again with the next set.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject, variable_bytes
from kubectl_gadget.agent.bpf.syscall_programs import ALL, SyscallObject
from kubectl_gadget.agent.elf import ElfFile, MemorySource
from kubectl_gadget.agent.kernel import features, refusal
from kubectl_gadget.agent.sources.output import EventsOutput, ring_bytes
from kubectl_gadget.agent.sources.shared_maps import DESCENDANTS, OF_DESCENDANTS, PID, REFUSALS, SharedMaps
from kubectl_gadget.agent.sources.source import OWN_PROCESSES, NodeContext
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import Skipped, StartedPrograms
from kubectl_gadget.wire.client_messages import GadgetSpec, ProgramChoice

if TYPE_CHECKING:
    from kubectl_gadget.agent.sources.contents import Contents
    from kubectl_gadget.agent.symbols.uprobes import Uprobes


# What is set in a gadget's object before it is loaded: RUN's `parameters`, the node's variables, and sizes of maps.
# `globals`, the offsets of variables, come from the client, so an offset outside of .rodata is refused.

_FREQUENCY = "gadget_frequency"
"""The variable with the sampling frequency of perf event programs."""
_MOST_OFTEN = 10_000
_UNIQUE, _SEEN = "gadget_unique", "gadget_seen"
"""The variable of --unique, and the map that programs use only with it (bpf/include/gadget/unique.h)."""
_HASH, _CONTENTS = "gadget_hash", "gadget_contents"
"""The variable of --hash, and the map of files whose contents are digested (bpf/include/gadget/files/content.h)."""
_FILTERS = "gadget_filter_"
"""Prefix of the filters that all gadgets have."""


class GadgetVariables:
    """The variables of one gadget. `spec` is its entry in RUN; `of_node` has values for gadget_node_… variables."""

    def __init__(self, spec: GadgetSpec, of_node: Mapping[str, int]) -> None:
        self.of_node = dict(of_node)
        self._name = spec.name
        self._places = spec.globals
        self._parameters = spec.parameters
        self._ring_bytes = spec.ring_bytes
        self._map_entries = spec.map_entries
        self.filters = {name: value for name, value in spec.parameters.items() if name.startswith(_FILTERS)}
        """which processes the gadget follows, by variable"""

    def frequency(self) -> int:
        """Returns the sampling frequency of perf event programs, per second. Raises AgentError."""
        frequency = self._parameters.get(_FREQUENCY, 1)
        if not isinstance(frequency, int) or not 1 <= frequency <= _MOST_OFTEN:
            what = f"gadget {self._name}: {frequency!r} samples per second are not possible"
            raise AgentError(what, f"1 to {_MOST_OFTEN}, such as 99")
        return frequency

    def set(self, object: BpfObject) -> None:
        """Sets all values. Raises AgentError when the object does not have a parameter, or a value does not fit."""
        node = self.of_node | {"gadget_ring_wake_bytes": ring_bytes(self._ring_bytes) // 4}
        values = {name: value for name, value in node.items() if name in self._places}
        if (chosen := self._parameters.get(PID)) and chosen in [values.get(name) for name in OWN_PROCESSES]:
            values |= dict.fromkeys(values.keys() & set(OWN_PROCESSES), 0)  # the user requested this process by its PID
        for name, value in {**self._parameters, **values}.items():
            if name not in self._places:
                raise AgentError(f"gadget {self._name} has no parameter {name}")
            place = self._places[name]
            try:
                object.set_variable(place.offset, variable_bytes(value, place.size))
            except (ValueError, OverflowError, UnicodeError) as error:
                raise AgentError(f"gadget {self._name}: parameter {name} cannot be {value!r}: {error}") from None

    def resize_maps(self, object: BpfObject) -> None:
        """Sets the sizes of hashes, of the ring, and of the per-CPU counters."""
        if self._map_entries:
            object.resize_hashes(self._map_entries)
        if (seen := object.map(_SEEN)) and not self._parameters.get(_UNIQUE):
            seen.resize(1)
        if (contents := object.map(_CONTENTS)) and not self._parameters.get(_HASH):
            contents.resize(1)
        if events := object.map("gadget_events"):
            events.resize(ring_bytes(self._ring_bytes))
        if cpus := object.map("gadget_cpus"):
            cpus.resize(libbpf.load().call("libbpf_num_possible_cpus"))

    def share_maps(self, object: BpfObject, maps: SharedMaps) -> None:
        """Makes the object use the session's maps that it has. Raises AgentError."""
        object.reuse(maps.of_containers)
        if self._parameters.get(OF_DESCENDANTS) and (chosen := object.map(DESCENDANTS)):
            pid = self._parameters.get(PID, 0)
            if not isinstance(pid, int):
                raise AgentError(f"gadget {self._name}: parameter {PID} cannot be {pid!r}")
            chosen.reuse(maps.descendants(pid))
        if (refusals := object.map(REFUSALS)) and (fd := maps.refusals()) is not None:
            refusals.reuse(fd)


# Makes objects loadable before Linux 5.12, whose BPF has no atomic instruction except addition.
#
# Gadgets that load there use compare-and-swap only where losing a race is harmless: for the maximum of a histogram,
# which another CPU may then lower, and for the time of a report, which two CPUs may then send. That verifier refuses
# the instruction even where it is never reached.

_EXECUTABLE = 4
"""From a section's flags."""
_ATOMIC_8_BYTES, _COMPARE_AND_SWAP = 0xDB, 0xF1
_STORE_8_BYTES = 0x7B


def without_compare_and_swap(elf: bytes) -> bytes:
    """Returns the object with each compare-and-swap of 8 bytes replaced by a store. The register for its result keeps
    the expected value, as if the swap had succeeded."""
    changed = bytearray(elf)
    for one in ElfFile(MemorySource(elf)).sections:
        for at in range(one.offset, one.offset + one.size, 8) if one.flags & _EXECUTABLE else ():
            if elf[at] == _ATOMIC_8_BYTES and elf[at + 4] == _COMPARE_AND_SWAP:
                changed[at] = _STORE_8_BYTES
                changed[at + 4] = 0
    return bytes(changed)


# The programs.

_UNWINDS, _UNWINDING = "unwound_", "gadget_unwind_"
"""Prefixes of programs that unwind without frame pointers (bpf/include/gadget/unwind.h), and of the maps for it."""


def prepare_unwinding(object: BpfObject) -> bool:
    """Returns True if a chosen program unwinds; else leaves out these maps. Call it before the object is loaded."""
    if any(program.startswith(_UNWINDS) for program in object.chosen):
        if object.map(_UNWINDING + "memory") is None:
            return False
        object.set_constant("gadget_unwinds", True)
        for program in object.chosen:
            array = _UNWINDING + program.removeprefix(_UNWINDS)
            if program.startswith(_UNWINDS) and object.map(array) is not None:
                object.fill_program_array(array, program)
        return True
    object.leave_out_maps(_UNWINDING)
    return False


class _Choice:
    """One entry of RUN's `programs`: alternative sets, one of them needed, and why earlier ones were refused."""

    def __init__(self, wanted: ProgramChoice) -> None:
        self.wanted = wanted
        self.next = 0
        self.skipped: list[Skipped] = []

    @property
    def programs(self) -> tuple[str, ...]:
        sets = self.wanted.any_of
        return sets[self.next] if self.next < len(sets) else ()

    def refuse(self, program: str, why: str) -> None:
        self.skipped.append(Skipped(program=program, why=why))
        self.next += 1


class GadgetPrograms:
    """`spec` is one of RUN's `gadgets`, of a kind whose programs write the gadget's own records.

    `prepare` is called before the object is loaded; `open` before its programs are attached, and adds to the stack what
    has to be closed with them. Raises AgentError.
    """

    def __init__(
        self,
        spec: GadgetSpec,
        elf: bytes,
        context: NodeContext,
        prepare: Callable[[BpfObject], None],
        open: Callable[[BpfObject, EventsOutput, ExitStack], None],
    ) -> None:
        self.object: BpfObject
        self.output: EventsOutput
        self.stacks: Stacks | None = None
        self.contents: Contents | None = None
        self.uprobes: Uprobes | None = None
        self._spec = spec
        self._name = spec.name
        self._elf = elf
        self._context = context
        self._prepare = prepare
        self._open = open
        self._resources = ExitStack()
        self._choices = [_Choice(wanted) for wanted in spec.programs]
        self._variables = GadgetVariables(spec, {**context.variables, **context.own_processes})
        try:
            while not self._try():
                pass
        except BaseException:
            context.owners.give_up(self)
            raise
        try:
            if self.uprobes:
                self.uprobes.turn(time.monotonic())
        except BaseException:
            self.close()
            raise
        self._elf = b""
        if self.uprobes:
            context.callbacks.each_turn.append(self.uprobes.turn)

    def started(self) -> tuple[StartedPrograms, ...]:
        """The member `programs` of the STARTED frame."""
        loaded = set(self.object.chosen)
        chosen = [
            (tuple(name for name in choice.programs if name in loaded), tuple(choice.skipped))
            for choice in self._choices
        ]
        return tuple(
            StartedPrograms(chosen=names, hooks=tuple(map(self.object.hook, names)), skipped=skipped)
            for names, skipped in chosen or [(tuple(self.object.chosen), ())]
        )

    def stopped(self) -> dict[str, str]:
        """Returns why programs that the gadget needs no longer run, by program, including other gadgets' programs."""
        return self.object.stopped() | self._context.owners.stopped(self.object, self._variables.filters)

    def detach_uprobes(self) -> None:
        """Detaches all uprobes. No program runs in a library after this."""
        if self.uprobes:
            self.uprobes.close()

    def close(self) -> None:
        """Frees everything, including what `open` added."""
        self._resources.close()
        if self.uprobes:
            self.uprobes.free()

    def _try(self) -> bool:
        """Tries the current choice. Returns False when a program was refused and another way is tried next."""
        wanted = [name for choice in self._choices for name in choice.programs] if self._choices else None
        try:
            object = SyscallObject(self._elf, self._name, wanted, self._context.calls, ALL)
        except Failure as failure:
            raise refusal.refused(f"gadget {self._name}", failure) from None
        program = None
        with ExitStack() as resources:
            resources.callback(object.close)
            uprobes = self._uprobes(object)
            try:
                object.frequency = self._variables.frequency()
                self._prepare_object(object)
                unwinds = prepare_unwinding(object)
                if uprobes:
                    uprobes.prepare()
                object.load(self._context.turns)
                self.output = self._open_output(object)
                resources.callback(self.output.close)
                self._open(object, self.output, resources)
                for program in object.chosen:
                    object.attach(program)
                    if object.section(program).startswith("iter") and self._spec.kind != "snapshot":
                        object.iterate(program)
                if stacks := object.map("gadget_stacks"):
                    self.stacks = Stacks(stacks, self._context.symbols, self._spec.stack_offsets)
                if unwinds:
                    self._unwind(object, resources)
                if self._spec.parameters.get(_HASH) and (contents := object.map(_CONTENTS)):
                    from kubectl_gadget.agent.sources.contents import Contents  # few sessions need it

                    self.contents = Contents(contents)
            except Failure as failure:
                program = program or refusal.failed_program(failure.log)
                section = object.section(program) if program in object.program_names else ""
                resources.close()
                if refusal.lacks_atomics(failure) and (elf := without_compare_and_swap(self._elf)) != self._elf:
                    self._elf = elf
                    return False
                self._refused(program, failure, features.lacking(section.partition("/")[0]))
                return False
            self._resources = resources.pop_all()
        self._context.owners.keep(object, self._variables.filters, self)
        if not unwinds:
            self._warn_without_unwinding()
        self.object = object
        self.uprobes = uprobes
        return True

    def _unwind(self, object: BpfObject, resources: ExitStack) -> None:
        from kubectl_gadget.agent.symbols.unwinding import Unwinding  # with the modules that read ELF files

        unwinding = Unwinding(object, self._context.warnings.add)
        resources.callback(unwinding.close)
        chosen = self._spec.parameters.get(PID)
        if isinstance(chosen, int) and chosen:
            unwinding.expect([chosen])
        self._context.callbacks.each_turn.append(unwinding.turn)

    def _warn_without_unwinding(self) -> None:
        skipped = [skip for choice in self._choices for skip in choice.skipped if skip.program.startswith(_UNWINDS)]
        if skipped:
            why = skipped[-1].why.partition("\n")[0]
            self._context.warnings.add(f"{self._name}: callers are found by frame pointers only ({why})")

    def _uprobes(self, object: BpfObject) -> "Uprobes | None":
        spec, context = self._spec, self._context
        if not spec.libraries:
            return None
        from kubectl_gadget.agent.symbols.uprobes import Uprobes  # with the modules that read ELF files

        return Uprobes(object, spec.libraries, context.wants_cgroup, context.warnings.add, spec.named)

    def _prepare_object(self, object: BpfObject) -> None:
        known = object.program_names
        for choice in self._choices:
            for name in choice.programs:
                if name not in known:
                    what = f"the object has no program {name}; it has {', '.join(known)}"
                    raise AgentError(f"gadget {self._name}: {what}")
        self._variables.set(object)
        self._variables.resize_maps(object)
        self._prepare(object)
        self._variables.share_maps(object, self._context.maps)
        self._context.owners.share(object, self._variables.filters, self)
        self._context.packets.adopt(object)

    def _open_output(self, object: BpfObject) -> EventsOutput:
        events, cpus = object.map("gadget_events"), object.map("gadget_cpus")
        if events is None or cpus is None:
            raise AgentError(
                f"gadget {self._name}: the object lacks the map gadget_events or gadget_cpus",
                "include gadget/output.h (docs/writing-gadgets.md)",
            )
        return EventsOutput(events, cpus, object.map("gadget_shares"), self._context.containers.numbers)

    def _refused(self, program: str | None, failure: Failure, lacking: str | None) -> None:
        choice = next((choice for choice in self._choices if program in choice.programs), None)
        why, remedy = (lacking, None) if lacking else refusal.reason(failure)
        if choice is None or program is None:
            raise refusal.refused(f"gadget {self._name}", failure)
        wanted = choice.wanted
        last = choice.next + 1 == len(wanted.any_of)
        if last and not wanted.optional:
            others = "".join(f"\n{skip.program} was tried before: {skip.why}" for skip in choice.skipped)
            error = refusal.refused(f"gadget {self._name} (program {program})", failure, lacking)
            raise AgentError(f"{error}{others}", error.remedy)
        choice.refuse(program, "\n".join(part for part in (why, remedy) if part))
        if last and not wanted.aside:
            lacks = f"{wanted.purpose} ({program}: " if wanted.purpose else f"runs without {program} ("
            self._context.warnings.add(f"{self._name}: {lacks}{why})")
