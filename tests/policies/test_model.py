"""Which workloads a policy applies to, in every combination; and kinds of actions."""

from typing import get_args

import pytest

from kubectl_gadget.kube.selectors import LabelOperator, Requirement
from kubectl_gadget.policies.model import ENFORCING, NAMESPACE_LABEL, Action, ActionKind, Labels, Scope
from kubectl_gadget.policies.writing import find_field
from tests.policies.oracle import ScopedWorkload, belongs

WEB: Labels = (Requirement("app", "In", ("web",)),)
MAIN: Labels = (Requirement("name", "In", ("main",)),)
POD = ScopedWorkload("shop", "web-1", {"app": "web"}, "main", "docker.io/library/nginx", {"gpu": "yes"})
OTHER = ScopedWorkload("bank", "db-1", {"app": "db"}, "sidecar", "postgres")
HOST = ScopedWorkload()


@pytest.mark.parametrize(
    ("scope", "pod", "other", "host"),
    [
        (Scope(), True, True, True),
        (Scope(pods=()), True, True, False),
        (Scope(pods=WEB), True, False, False),
        (Scope(containers=MAIN), True, False, False),
        (Scope(host=True), False, False, True),
        (Scope(host=True, pods=WEB), True, False, True),
        (Scope(host=True, containers=MAIN), True, False, True),
        (Scope(namespace="shop"), True, False, False),
        (Scope(namespace="bank", pods=WEB), False, False, False),
        (
            Scope(pods=WEB, containers=(Requirement("repo", "NotIn", ("docker.io/library/nginx",)),)),
            False,
            False,
            False,
        ),
        (Scope(pods=(Requirement(NAMESPACE_LABEL, "In", ("bank",)),)), False, True, False),
        (Scope(nodes=(Requirement("gpu", "Exists"),)), True, False, False),
    ],
)
def test_which_workloads_a_policy_applies_to(scope: Scope, pod: bool, other: bool, host: bool) -> None:
    assert [belongs(scope, workload) for workload in (POD, OTHER, HOST)] == [pod, other, host]


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [
        ("In", ("a", "b"), [True, False, False]),
        ("NotIn", ("a", "b"), [False, True, True]),
        ("Exists", (), [True, True, False]),
        ("DoesNotExist", (), [False, False, True]),
    ],
)
def test_labels_are_selected_as_kubernetes_does(
    operator: LabelOperator, values: tuple[str, ...], selected: list[bool]
) -> None:
    scope = Scope(pods=(Requirement("k", operator, values),))
    pods = [ScopedWorkload("n", "p", labels) for labels in ({"k": "a"}, {"k": "c"}, {})]
    assert [belongs(scope, pod) for pod in pods] == selected


def test_a_kind_that_enforces_denies_or_sends_a_signal() -> None:
    sent = {kind: Action(kind, signal=10).signal_sent for kind in get_args(ActionKind)}
    assert {kind for kind, signal in sent.items() if signal} == set(ENFORCING) - {"Override"}
    assert (sent["Sigkill"], sent["Signal"]) == (9, 10)


def test_a_policy_may_name_every_kind_of_action() -> None:
    field, _ = find_field("spec.kprobes.selectors.matchActions.action")
    assert field.choices == get_args(ActionKind)
