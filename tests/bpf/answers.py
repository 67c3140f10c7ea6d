"""Like tracer.Tracer, for gadgets whose result is a state or sums: through the agent's own code for these.

with Answers("top_file") as top:
    …
    records = top.take()
"""

from typing import Any

from kubectl_gadget.agent.bpf.maps import CpuCounters
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.sources.samplers import Sampled
from kubectl_gadget.agent.sources.snapshot import Iterators
from kubectl_gadget.agent.sources.top import Totals
from kubectl_gadget.run import request
from kubectl_gadget.wire.client_messages import GadgetSpec
from tests.bpf.tracer import Tracer, split


class Answers(Tracer):
    """One gadget, attached. Nothing is taken before take()."""

    answer: Iterators | Totals

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, ring_bytes=4096, **options)

    def __enter__(self) -> "Answers":
        self._containers = Containers()  # first, as in an agent: loading it reads files
        try:
            self.object = self._load(self.gadget)
        except BaseException:  # also skipped, where the kernel lacks something
            self._containers.close()
            raise
        cpus, events = self.object.map("gadget_cpus"), self.object.map("gadget_events")
        assert cpus is not None
        assert events is not None
        self.counters = CpuCounters(cpus.fd, cpus.entries)
        self._ring = open_ring(events.fd, events.entries, self.counters)
        self.warnings: list[str] = []
        layout = request.sampled_layout(self.gadget)
        spec = GadgetSpec(name="g", object=0, sampler=self.gadget.agent.sampler, layout=layout)
        self._sampled = Sampled(spec, self._containers, self.warnings.append)
        if self.gadget.kind == "snapshot":
            self.answer = Iterators(self.object, self._sampled, self.warnings.append)
        else:
            self.answer = Totals(self.object, self.gadget.record.size, self._sampled)
        return self

    def __exit__(self, *reason: Any) -> None:
        self._sampled.close()
        self._containers.close()
        super().__exit__(*reason)

    def take(self) -> list[dict[str, Any]]:
        """The records of a snapshot, or of an interval that ends now."""
        return [self._decode(record) for piece in self.answer.take() for record in split(piece)]
