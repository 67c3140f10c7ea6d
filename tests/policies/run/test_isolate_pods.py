"""Which pods the table of isolated pods names."""

from kubectl_gadget.policies.run.isolate_pods import PodIsolation


def test_a_pod_is_isolated_by_its_uid_so_that_a_later_pod_of_its_name_is_not() -> None:
    said: list[str] = []
    isolation = PodIsolation(said.append)
    for _ in range(2):
        isolation.isolate("shop", "db-0", "u1", "secrets")
    assert set(isolation.tables.of("node-1").pods) == {"u1"}
    assert said == ["shop/db-0 is cut off from the network: policy secrets"]


def test_pods_without_a_uid_are_isolated_by_name_each_of_them_and_it_is_said() -> None:
    said: list[str] = []
    isolation = PodIsolation(said.append)
    for pod in ("a", "b", "a"):
        isolation.isolate("shop", pod, "", "secrets")
    assert set(isolation.tables.of("node-1").pods) == {"shop/a", "shop/b"}
    assert [text.partition(" (")[0] for text in said] == [
        f"shop/{pod} is cut off from the network: policy secrets" for pod in "ab"
    ]
    assert all("later pods of this name are cut off too" in text for text in said)
