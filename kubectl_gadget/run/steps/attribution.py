"""Step 3 of the pipeline: finds the containers of rows, and whether those containers were selected.

The agent filters by container. The client checks again what the agent let through, and checks labels, which no agent
knows. The trap: rows of a pod whose labels are not known yet wait, for a bounded time.
"""

from collections.abc import Callable, Iterator
from functools import partial

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container, ContainerFilter
from kubectl_gadget.wire.client_messages import FilterSpec

_DECISION_NS = 3_000_000_000
"""How long rows of a new pod wait for its labels from the API server. Then they count as unattributed."""

_EVERY_CONTAINER = ContainerFilter(FilterSpec())
_UNWANTED, _UNJUDGED, _WANTED = range(3)


class Attribution:
    """`wants` returns what a label selector decides about a pod, by uid and name; None: not known yet."""

    def __init__(self, wants: Callable[[str, str], bool | None], narrowed: ContainerFilter | None = None) -> None:
        """`narrowed`: further conditions that containers must meet, on every node."""
        self.unattributed = 0
        """events of cgroups that no agent could name, or of pods whose labels did not arrive in time"""
        self.unnamed = 0
        """the former alone: events of no pod, as far as is known"""
        self._wants = wants
        self._narrowed = narrowed
        self._selections: dict[str, ContainerFilter] = {}
        self._undecided: list[tuple[Batch, int]] = []

    def choose(self, node: str, filter: FilterSpec) -> None:
        """Applies a node's FILTER (docs/protocol.md)."""
        self._selections[node] = ContainerFilter(filter)

    def _selects(self, node: str) -> Callable[[Container], bool]:
        selection, narrowed = self._selections.get(node, _EVERY_CONTAINER), self._narrowed
        if narrowed is None:
            return selection.wanted
        return lambda container: selection.wanted(container) and narrowed.wanted(container)

    def selected(self, batch: Batch) -> Batch:
        """Returns the rows of traced containers, whatever their labels, of rows that have names."""
        wanted = batch.judged(self._selects) > 0
        return batch if bool(wanted.all()) else batch.select(wanted)

    def count_unnamed(self, batch: Batch) -> None:
        """Call it once for each named batch, before rows are removed from it."""
        assert batch.owners is not None
        unnamed = batch.owners.unattributed()
        self.unattributed, self.unnamed = self.unattributed + unnamed, self.unnamed + unnamed

    def judged(self, batch: Batch, now_ns: int) -> Batch:
        """Returns the rows of traced containers that labels select, too. Rows of undecided pods are kept back."""
        return self._judged(batch, now_ns, now_ns + _DECISION_NS)

    def late(self, now_ns: int, at_end: bool = False) -> Iterator[Batch]:
        """Yields rows that were kept back and are now wanted; `at_end`: no further decision will come."""
        undecided, self._undecided = self._undecided, []
        for batch, deadline in undecided:
            yield self._judged(batch, now_ns, now_ns if at_end else deadline)

    def wanted(self, node: str, container: Container) -> bool:
        """Whether this container is traced, as far as is known."""
        return self._selects(node)(container) and bool(self._wants(container.pod_uid, container.pod_name))

    def _judged(self, batch: Batch, now_ns: int, deadline_ns: int) -> Batch:
        if not len(batch) or batch.owners is None:
            return batch
        judgements = batch.judged(lambda node: partial(self._judge, self._selects(node)))
        wanted = judgements == _WANTED
        unjudged = batch.select(judgements == _UNJUDGED)
        if len(unjudged) and now_ns < deadline_ns:
            self._undecided.append((unjudged, deadline_ns))
        else:
            self.unattributed += len(unjudged)
        return batch if wanted.all() else batch.select(wanted)

    def _judge(self, selects: Callable[[Container], bool], container: Container) -> int:
        """Decides about a container. An event with two parties needs selection and labels to agree on one party."""
        if not selects(container):
            return _UNWANTED
        verdict = self._wants(container.pod_uid, container.pod_name)
        return _UNJUDGED if verdict is None else _WANTED if verdict else _UNWANTED
