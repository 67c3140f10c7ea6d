"""TracingPolicies from facts: which programs a container may execute, and which files it may open to write.

They only report, unless they are asked to deny. Values are whole paths and prefixes, so a placeholder within a path
allows everything with the same beginning; and a script needs its interpreter, too, since the kernel checks both.
"""

from collections.abc import Collection, Iterable, Mapping

from kubectl_gadget.advise.baselines import gaps, interpreter, is_path, target, units_by_workload, without_applet
from kubectl_gadget.advise.documents import Document
from kubectl_gadget.behavior.facts import WRITE, Behavior, Fact, FactKind, Unit
from kubectl_gadget.kube.inventory import LOCAL_LABEL
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.linux.names import USUAL_DEVICES

_OWN = ("/dev/pts/", *(f"/proc/{digit}" for digit in range(1, 10)))
"""The paths that facts leave out: terminals, and files of processes in /proc."""
_RUNTIMES: Mapping[str, object] = {"operator": "NotPostfix", "values": ["/exec.fifo"]}
"""The only file that the runtime opens to write in the container: by it, it waits until the container is started."""
_FMODE_WRITE = "2"


def tracing_policies(behavior: Behavior, multicall: Collection[str], deny: bool = False) -> list[Document]:
    """A policy for each container that is in a pod. `deny`: programs and files that are not listed fail with EPERM."""
    found = (
        _policy(behavior, unit, multicall, deny)
        for _, units in units_by_workload(behavior)
        for unit in units
        if unit.workload.namespace and FactKind.PROGRAM in behavior.coverage[unit].kinds
    )
    return [document for document in found if document.body["spec"]["kprobes"]]


def _policy(behavior: Behavior, unit: Unit, multicall: Collection[str], deny: bool) -> Document:
    facts, workload, hooks = list(behavior.of(unit)), unit.workload, list[Object]()
    label = f"{unit}: a baseline has no labels. Check {LOCAL_LABEL} below."
    comments = [label, "Not complete: it allows only what was seen.", *gaps(behavior, unit)]
    action = [{"action": "Override", "argError": -1}] if deny else [{"action": "Post"}]
    programs = {without_applet(fact.program, multicall) for fact in facts if fact.kind is FactKind.PROGRAM}
    if any(not fact.evidence for fact in facts if fact.kind is FactKind.PROGRAM):
        comments.append("  The interpreters of some programs are not known: add the interpreters of scripts.")
    programs |= {interpreter(fact) for fact in facts} - {""}
    if programs and (allowed := _compared(programs, (), comments)):
        hooks.append(_executed(allowed, action))
    if FactKind.OPEN not in behavior.coverage[unit].kinds:
        comments.append("  What it writes was not observed, so it is not in the policy.")
    elif allowed := _compared(_written(facts), _OWN, comments, USUAL_DEVICES):
        hooks.append(_opened(allowed, action))
    name = "-".join((workload.kind, workload.name, unit.container)).lower()
    body = {
        "apiVersion": "cilium.io/v1alpha1",
        "kind": "TracingPolicyNamespaced",
        "metadata": {"name": name, "namespace": workload.namespace},
        "spec": {
            "podSelector": {"matchLabels": {LOCAL_LABEL: workload.name}},
            "containerSelector": {
                "matchExpressions": [{"key": "name", "operator": "In", "values": [unit.container]}],
            },
            "kprobes": hooks,
        },
    }
    return Document(body, tuple(comments), f"{workload.namespace}_{name}")


def _written(facts: Iterable[Fact]) -> set[str]:
    opens = (fact.value.partition(" ") for fact in facts if fact.kind is FactKind.OPEN)
    return {path for access, _, path in opens if access == WRITE}


def _compared(
    paths: Iterable[str], prefixes: Iterable[str], comments: list[str], whole: Iterable[str] = ()
) -> list[Object]:
    """The condition that a path is none of these. Empty: any path may be one of these, or a policy cannot express the
    condition."""
    equal, begins = set(whole), set(prefixes)
    for path in sorted(paths):
        if not is_path(path):
            comments.append(f"  cannot be written in a policy, so it is not allowed: {path!a}")
            continue
        found = target(path)
        if found.is_whole:
            equal.add(found.text)
            continue
        if found.text.count("/") < 2:
            comments.append(f"  {path} may stand for any path, so the policy does not restrict such paths")
            return []
        begins.add(found.text)
        comments.append(f"  {path} allows all paths that begin with {found.text}")
    shortest = [each for each in begins if not any(each != other and each.startswith(other) for other in begins)]
    found_values = (("NotEqual", sorted(equal)), ("NotPrefix", sorted(shortest)))
    return [{"operator": operator, "values": values} for operator, values in found_values if values]


def _hook(
    call: str,
    message: str,
    args: list[dict[str, object]],
    conditions: list[dict[str, object]],
    action: list[dict[str, object]],
) -> dict[str, object]:
    """A hook. The runtime executes itself before it enters the container's mount namespace."""
    inside = [{"namespace": "Mnt", "operator": "NotIn", "values": ["host_ns"]}]
    selector = {"matchNamespaces": inside, "matchArgs": conditions, "matchActions": action}
    return {"call": call, "syscall": False, "message": message, "args": args, "selectors": [selector]}


def _executed(allowed: list[Object], action: list[Object]) -> Object:
    said, args = "A program was executed that is not in the baseline", [{"index": 0, "type": "linux_binprm"}]
    return _hook("security_bprm_check", said, args, [{"index": 0, **each} for each in allowed], action)


def _opened(allowed: list[Object], action: list[Object]) -> Object:
    mode = {"index": 0, "type": "uint32", "label": "mode", "resolve": "f_mode"}
    conditions = [
        {"args": [1], "operator": "Mask", "values": [_FMODE_WRITE]},
        *({"args": [0], **each} for each in (*allowed, _RUNTIMES)),
    ]
    said = "A file was opened for writing that is not in the baseline"
    return _hook("security_file_open", said, [{"index": 0, "type": "file"}, mode], conditions, action)
