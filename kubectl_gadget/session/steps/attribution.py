"""Step 3 of the pipeline: whose rows these are, and whether those containers were selected.

The agent filters by container; the client decides again on what was let through, and by labels, which no agent knows.
The trap: rows of a pod whose labels are not known yet wait, for a bounded time.
"""

from collections.abc import Callable, Iterator
from functools import partial

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.identity import Container, ContainerFilter
from kubectl_gadget.session.steps.decoding import NodeDecoder
from kubectl_gadget.wire.client_messages import FilterSpec

_DECISION_NS = 3_000_000_000
"""How long rows of a new pod wait for the API server's word on its labels. Then they count as unattributed."""

_UNWANTED, _UNJUDGED, _WANTED = range(3)


class Attribution:
    """`wants` is what a label selector says of a pod, by uid and name; None: not known yet."""

    def __init__(self, wants: Callable[[str, str], bool | None], narrowed: ContainerFilter | None = None) -> None:
        """`narrowed`: what containers must fulfil besides, on every node."""
        self.unattributed = 0
        """events of cgroups that no agent could name, or of pods whose labels nobody knew in time"""
        self._wants = wants
        self._narrowed = narrowed
        self._selections: dict[str, ContainerFilter] = {}
        self._undecided: list[tuple[Batch, int]] = []

    def choose(self, node: str, filter: FilterSpec) -> None:
        """A node's FILTER (docs/protocol.md)."""

        def names(value: tuple[str, ...] | None) -> frozenset[str] | None:
            return None if value is None else frozenset(value)

        self._selections[node] = ContainerFilter(
            namespaces=names(filter.namespaces),
            pods=names(filter.pods),
            containers=names(filter.containers),
            exclude_pods=frozenset(filter.exclude_pods),
            host=filter.host,
        )

    def selection(self, node: str) -> ContainerFilter:
        """Which of the node's containers are traced."""
        return self._selections.get(node, ContainerFilter())

    def _selects(self, node: str) -> Callable[[Container], bool]:
        selection, narrowed = self.selection(node), self._narrowed
        if narrowed is None:
            return selection.wanted
        return lambda container: selection.wanted(container) and narrowed.wanted(container)

    def selected(self, node: NodeDecoder, batch: Batch) -> Batch:
        """The rows of containers that are traced, with their names."""
        batch.name_owners(node.identity.lookup)
        wanted = batch.judged(self._selects(node.name)) > 0
        return batch if bool(wanted.all()) else batch.select(wanted)

    def count_unnamed(self, batch: Batch) -> None:
        """To be called once for each batch that was named, before rows are left out of it."""
        assert batch.owners is not None
        self.unattributed += batch.owners.unattributed()

    def by_labels(self, batch: Batch, now_ns: int) -> Batch:
        """The rows of pods that the label selector wants. Rows of pods that it has not judged yet are kept."""
        return self._judged(batch, now_ns, now_ns + _DECISION_NS)

    def late(self, now_ns: int, at_end: bool = False) -> Iterator[Batch]:
        """Rows that were kept and are wanted; `at_end`: nothing more will be known."""
        undecided, self._undecided = self._undecided, []
        for batch, deadline in undecided:
            yield self._judged(batch, now_ns, now_ns if at_end else deadline)

    def wanted(self, node: str, container: Container) -> bool:
        """Whether this container is traced, as far as is known."""
        return self._selects(node)(container) and bool(self._wants(container.pod_uid, container.pod_name))

    def _judged(self, batch: Batch, now_ns: int, deadline_ns: int) -> Batch:
        if not len(batch) or batch.owners is None:
            return batch
        judgements = batch.judged(partial(self._judge, self._selects(batch.node)))
        wanted = judgements == _WANTED
        unjudged = batch.select(judgements == _UNJUDGED)
        if len(unjudged) and now_ns < deadline_ns:
            self._undecided.append((unjudged, deadline_ns))
        else:
            self.unattributed += len(unjudged)
        return batch if wanted.all() else batch.select(wanted)

    def _judge(self, selects: Callable[[Container], bool], container: Container) -> int:
        """An event of two parties is wanted when the selection and the labels agree on one of them."""
        if not selects(container):
            return _UNWANTED
        verdict = self._wants(container.pod_uid, container.pod_name)
        return _UNJUDGED if verdict is None else _WANTED if verdict else _UNWANTED
