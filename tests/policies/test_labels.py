"""Which workloads a policy applies to, by labels: client and agent together decide as the model does."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.policies.hook import Applicable
from kubectl_gadget.agent.policies.scopes import Scopes
from kubectl_gadget.kube.resources import NODES, PODS
from kubectl_gadget.kube.selectors import LabelOperator, Requirement
from kubectl_gadget.policies.labels import PolicyLabels
from kubectl_gadget.policies.model import NAMESPACE_LABEL, Labels, Scope, scope_spec
from kubectl_gadget.run.live_tables import Contents, updates
from kubectl_gadget.wire.policy_messages import LabelScopes
from tests.policies.oracle import ScopedWorkload, belongs

NODE = "node-1"
VALUES = ("a", "b")


def requirements(*keys: str) -> st.SearchStrategy[Labels | None]:
    def one(key: str, operator: LabelOperator, values: list[str]) -> Requirement:
        return Requirement(key, operator, tuple(values) if operator in ("In", "NotIn") else ())

    operators = st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"])
    values = st.lists(st.sampled_from(VALUES), min_size=1, max_size=2)
    lines = st.builds(one, st.sampled_from(keys), operators, values)
    return st.none() | st.lists(lines, max_size=2).map(tuple)


SCOPES = st.builds(
    Scope,
    namespace=st.none() | st.sampled_from(VALUES),
    pods=requirements("app", "tier", NAMESPACE_LABEL),
    containers=requirements("name", "repo"),
    host=st.booleans(),
    nodes=requirements("zone"),
)
LABELS = st.dictionaries(st.sampled_from(["app", "tier", "zone"]), st.sampled_from(VALUES))


def container(workload: ScopedWorkload) -> ContainerIdentity | None:
    if workload.is_host:
        return None
    uid = "uid" if workload.pod else ""
    names = (workload.namespace, workload.pod, uid, workload.container, workload.repository)
    return ContainerIdentity("id", 1, *names, "containerd", "container")


def pod(labels: dict[str, str], namespace: str = "a", **more: Any) -> dict[str, Any]:
    metadata = {"name": "pod", "namespace": namespace, "uid": "uid", "labels": labels, **more}
    return {"metadata": metadata, "spec": {"nodeName": NODE}}


def tell(scopes: Scopes, labels: PolicyLabels) -> None:
    """As a session does it."""
    for update in updates(0, Contents(), labels.tables.of(NODE)):
        assert update.labels is not None
        scopes.labels.update(update.labels)


@settings(deadline=None)
@given(
    st.lists(SCOPES, min_size=1, max_size=5),
    st.builds(
        ScopedWorkload,
        namespace=st.sampled_from(VALUES),
        pod=st.sampled_from(["", "pod"]),
        labels=LABELS,
        container=st.sampled_from(VALUES),
        repository=st.sampled_from(VALUES),
        node_labels=LABELS,
    ),
)
def test_agents_judge_as_the_model_does_once_they_have_the_labels(given: list[Scope], workload: ScopedWorkload) -> None:
    labels, scopes = PolicyLabels(given), Scopes([scope_spec(scope) for scope in given])
    before = scopes.of(container(workload))
    node = {"metadata": {"name": NODE, "labels": dict(workload.node_labels)}}
    labels.take({PODS: [pod(dict(workload.labels), workload.namespace)], NODES: [node]})
    tell(scopes, labels)
    right = tuple(number for number, scope in enumerate(given) if belongs(scope, workload))
    after = scopes.of(container(workload))
    assert after == Applicable(right, ())
    # A workload is covered before its labels have arrived.
    assert set(right) <= {*before.sure, *before.unsure}
    assert set(before.sure) <= set(right)


APP = Scope(pods=(Requirement("app", "In", ("web",)),))


def test_a_pod_whose_labels_change_is_judged_again() -> None:
    labels, scopes = PolicyLabels([APP]), Scopes([scope_spec(APP)])
    there = ContainerIdentity("id", 1, "a", "pod", "uid", "main", "", "containerd", "container")
    assert scopes.of(there) == Applicable((), (0,))
    found = []
    for value in ("web", "db", "web"):
        labels.take({PODS: [pod({"app": value})]})
        tell(scopes, labels)
        found.append(scopes.of(there).sure)
    assert found == [(0,), (), (0,)]


def test_to_a_pods_container_without_names_apply_the_policies_for_every_container() -> None:
    given = [Scope(), Scope(namespace="a"), Scope(containers=(Requirement("name", "NotIn", ("web",)),)), APP]
    scopes = Scopes([scope_spec(scope) for scope in given])
    nameless = ContainerIdentity("id", 1, "", "", "uid", "0123456789ab", "", "containerd", "container")
    assert scopes.of(nameless) == scopes.of_unknown() == Applicable((0,), (3,))


def mirror(labels: dict[str, str], hash: str, **more: Any) -> dict[str, Any]:
    annotations = {"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash}
    owners = [{"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "node-uid", "controller": True}]
    return pod(labels, annotations=annotations, ownerReferences=owners, **more)


def test_a_static_pod_is_known_by_the_name_that_its_containers_have() -> None:
    labels = PolicyLabels([APP])
    labels.take({PODS: [mirror({"app": "web"}, "static")]})
    assert labels.tables.of(NODE).labels == {"a/pod": (0,)}
    assert labels.is_for((0,), "static", "a/pod") is True
    assert labels.is_for((0,), "static", "") is True


def test_a_pod_that_claims_the_uid_of_another_takes_it_out_of_no_policy() -> None:
    labels, scopes = PolicyLabels([APP]), Scopes([scope_spec(APP)])
    there = ContainerIdentity("id", 1, "a", "pod", "uid", "main", "", "containerd", "container")
    simple = pod({}, "evil", name="decoy", uid="decoy", annotations={"kubernetes.io/config.hash": "uid"})
    perfect = mirror({}, "uid", namespace="evil", name="perfect", uid="perfect")
    labels.take({PODS: [pod({"app": "web"}), simple, perfect]})
    tell(scopes, labels)
    assert scopes.of(there) == Applicable((0,), ())
    assert labels.is_for((0,), "uid", "a/pod") is True


def test_a_node_gets_its_own_pods_only() -> None:
    labels = PolicyLabels([APP])
    labels.take({PODS: [pod({"app": "web"})]})
    assert labels.tables.of("another").labels == {}


def test_a_pod_that_is_gone_is_forgotten_by_its_agent() -> None:
    labels = PolicyLabels([APP])
    labels.take({PODS: [pod({"app": "web"})]})
    before = labels.tables.of(NODE)
    labels.take({PODS: []})
    (update,) = updates(0, before, labels.tables.of(NODE))
    assert update.labels == LabelScopes(node=(), pods={"uid": None})


def test_the_client_knows_what_was_seen_by_mistake() -> None:
    labels = PolicyLabels([APP, Scope()])
    assert labels.is_for((0,), "uid", "a/pod") is None
    labels.take({PODS: [pod({"app": "db"})]})
    assert (labels.is_for((0,), "uid", "a/pod"), labels.is_for((1,), "uid", "a/pod")) == (False, True)
