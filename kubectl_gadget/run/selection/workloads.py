"""Workloads and services as targets: finds the pods of `deploy/web`, `cronjob/backup` or `svc/web`, as they change.

A pod belongs to a workload through its controller, and to a service through the service's selector. The trap: labels
alone would include pods that merely have the same labels. A ReplicaSet is recognized by its name, which the Deployment
builds from its own name and the label `pod-template-hash`, so no right to list ReplicaSets is needed.
"""

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kubectl_gadget.errors import ClusterError, GadgetError
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICES,
    STATEFUL_SETS,
    Object,
    Resource,
)
from kubectl_gadget.kube.watch import Changed, Synced

_RESOURCES = {
    resource.kind.lower(): resource
    for resource in (
        DEPLOYMENTS,
        REPLICA_SETS,
        STATEFUL_SETS,
        DAEMON_SETS,
        JOBS,
        CRON_JOBS,
        SERVICES,
        REPLICATION_CONTROLLERS,
    )
}
_TEMPLATE = "pod-template-hash"


class Controller(NamedTuple):
    """The controller of an object."""

    group: str = ""
    kind: str = ""
    name: str = ""

    @classmethod
    def of(cls, found: Object) -> "Controller":
        """Returns the controller of any object; empty when it has none."""
        for owner in found["metadata"].get("ownerReferences") or ():
            if owner.get("controller"):
                group = str(owner.get("apiVersion", "")).rpartition("/")[0]
                return cls(group, owner.get("kind", ""), owner.get("name", ""))
        return cls()


class Workloads:
    """The chosen workloads and services, as (kind, name), in one namespace."""

    def __init__(self, api: Api, chosen: Sequence[tuple[str, str]], namespace: str) -> None:
        self._api = api
        self._chosen = chosen
        self._namespace = namespace
        self._jobs: dict[str, str] = {}
        """the CronJob of each Job; also of deleted Jobs, whose last events may still arrive"""
        self._services: dict[str, Mapping[str, str]] = {}
        """selectors"""
        chosen_kinds = {kind for kind, _ in chosen}
        self.watched: tuple[Resource, ...] = (
            *((JOBS,) if "cronjob" in chosen_kinds else ()),
            *((SERVICES,) if "service" in chosen_kinds else ()),
        )
        """the resources to list and watch, and to pass to `see`"""

    def __str__(self) -> str:
        return ", ".join(f"{kind}/{name}" for kind, name in self._chosen)

    def accesses(self) -> list[Access]:
        """Returns the rights needed in addition to listing and watching `watched`."""
        kinds = dict.fromkeys(kind for kind, _ in self._chosen if kind != "service")
        return [Access("get", _RESOURCES[kind].qualified, self._namespace) for kind in kinds]

    async def check(self) -> None:
        """Raises ClusterError when one of them does not exist. `check_listed` checks services."""
        wanted = [(kind, name) for kind, name in self._chosen if kind != "service"]
        found = await asyncio.gather(
            *(self._api.get(_RESOURCES[kind], name, self._namespace) for kind, name in wanted), return_exceptions=True
        )
        for (kind, name), answer in zip(wanted, found, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                raise await self._not_found(kind, name)

    async def check_listed(self) -> None:
        """Raises ClusterError when a service does not exist or selects no pods. Call it once all `watched` are
        listed."""
        for kind, name in self._chosen:
            if kind != "service":
                continue
            if name not in self._services:
                raise await self._not_found(kind, name)
            if not self._services[name]:
                raise ClusterError(
                    f'services "{name}" in namespace {self._namespace} has no selector, so it has no pods of its own',
                    f"kubectl get endpointslices -n {self._namespace} -l kubernetes.io/service-name={name}",
                )

    def see(self, kind: Resource, change: Synced | Changed) -> None:
        """Applies a change of a resource in `watched`."""
        if kind is SERVICES and isinstance(change, Synced):
            self._services.clear()
        for found in change.items if isinstance(change, Synced) else [change.object]:
            name = found["metadata"]["name"]
            if kind is JOBS:
                owner = Controller.of(found)
                if (owner.group, owner.kind) == (CRON_JOBS.group, CRON_JOBS.kind):
                    self._jobs[name] = owner.name
            elif isinstance(change, Changed) and change.deleted:
                self._services.pop(name, None)
            else:
                self._services[name] = (found.get("spec") or {}).get("selector") or {}

    def accepts(self, labels: Mapping[str, str], controller: Controller) -> bool:
        """Whether a pod of the namespace with these labels and this controller belongs to one of them."""
        return any(self._belongs(kind, name, labels, controller) for kind, name in self._chosen)

    def _belongs(self, kind: str, name: str, labels: Mapping[str, str], controller: Controller) -> bool:
        if kind == "service":
            selector = self._services.get(name)
            return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())
        if kind == "deployment":
            template = labels.get(_TEMPLATE)
            return bool(template) and controller == (REPLICA_SETS.group, REPLICA_SETS.kind, f"{name}-{template}")
        if kind == "cronjob":
            is_job = (controller.group, controller.kind) == (JOBS.group, JOBS.kind)
            return is_job and self._jobs.get(controller.name) == name
        resource = _RESOURCES[kind]
        return controller == (resource.group, resource.kind, name)

    async def _not_found(self, kind: str, name: str) -> ClusterError:
        resource = _RESOURCES[kind]
        near: list[str] = []
        try:
            there = (await self._api.find(resource, self._namespace)).items
            near = difflib.get_close_matches(name, [found["metadata"]["name"] for found in there], 3, 0.5)
        except GadgetError:
            pass  # without the right to list them, there is no suggestion
        remedy = " or ".join(f"{kind}/{found}" for found in near)
        return ClusterError(
            f'{resource.qualified} "{name}" not found in namespace {self._namespace}',
            remedy or f"kubectl get {resource.plural} -n {self._namespace}",
        )


def facts(found: Any) -> tuple[Mapping[str, str], Controller]:
    """Returns what `Workloads.accepts` has to know about a pod."""
    return found["metadata"].get("labels") or {}, Controller.of(found)
