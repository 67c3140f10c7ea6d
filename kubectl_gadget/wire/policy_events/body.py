"""The JSON of a policy's event, in the schema that readers of security events know: process_kprobe, process_lsm, …

As in that schema, members without information are left out: empty texts and lists, and zeros other than a status.
"""

import base64
import time
from functools import lru_cache
from typing import Any

from kubectl_gadget.wire.policy_events.event import EventArgument, PolicyEvent, StackEntry

Object = dict[str, Any]


def policy_body(event: PolicyEvent) -> Object:
    """All members except the process, its parent and its ancestors."""
    prefix = "LSM" if event.hook == "lsm" else "KPROBE"
    body: Object = _place(event)
    if event.hook != "loader":
        body["args"] = [_argument(item) for item in event.args]
    body["data"] = [_argument(item) for item in event.data]
    if event.returned is not None:
        body["return"] = _argument(event.returned)
    body["action"] = f"KPROBE_ACTION_{event.action.upper()}"
    if event.return_action and prefix == "KPROBE":
        body["return_action"] = f"KPROBE_ACTION_{event.return_action.upper()}"
    body["kernel_stack_trace"] = list(map(_frame, event.kernel_stack))
    body["user_stack_trace"] = list(map(_frame, event.user_stack))
    body |= {"policy_name": event.policy, "message": event.message, "tags": list(event.tags)}
    body |= {"ima_hash": event.ima_hash, "file_id": event.file_id}
    if event.blocked:
        body |= {"blocked": True, "verdict": event.verdict}
    body["would_be"] = event.would_be
    return known(body)


def _place(event: PolicyEvent) -> Object:
    match event.hook:
        case "tracepoint":
            return {"subsys": event.subsystem, "event": event.function}
        case "uprobe":
            offsets = {"offset": event.offset or None, "ref_ctr_offset": event.reference_counter or None}
            return {"path": event.path, "symbol": event.function, **offsets}
        case "loader":
            id = next((str(one.value) for one in event.args if one.kind == "build_id"), "")
            # JSON of protocol buffers encodes bytes this way.
            return {"path": event.path, "buildid": base64.b64encode(bytes.fromhex(id)).decode()}
        case "usdt":
            return {"path": event.path, "provider": event.subsystem, "name": event.function}
    return {"function_name": event.symbol or event.function}


def _argument(argument: EventArgument) -> Object:
    name = argument.kind if argument.kind in ("syscall_id",) else f"{argument.kind}_arg"
    return {name: argument.value, **({"label": argument.label} if argument.label else {})}


def _frame(frame: StackEntry) -> Object:
    found: Object = {"address": str(frame.address) if frame.address else None, "symbol": frame.symbol}
    return known({**found, "offset": str(frame.offset) if frame.symbol else None, "module": frame.module})


def pod_body(names: Object, image: str, runtime: str, container_id: str, pid: int | None = None) -> Object | None:
    """A process's `pod`; `names` has namespace, pod, pod_uid and container. None for processes outside of pods."""
    if not names["pod"]:
        return None
    container = {
        "id": f"{runtime}://{container_id}" if runtime else container_id,
        "name": names["container"],
        "image": known({"name": image}),
        "pid": pid,
    }
    found = {"namespace": names["namespace"], "name": names["pod"], "uid": names["pod_uid"]}
    return known({**found, "container": known(container)})


def rfc3339(wall_ns: int) -> str:
    """A time in UTC with nanoseconds, from nanoseconds since the epoch."""
    second, fraction = divmod(wall_ns, 1_000_000_000)
    return f"{_spelt(second)}.{fraction:09d}Z"


@lru_cache(1024)
def _spelt(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def known(members: Object) -> Object:
    """The members without those that carry no information."""
    return {name: value for name, value in members.items() if value or (value == 0 and value is not False)}
