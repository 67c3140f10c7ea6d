"""Loads and attaches the hooks of a set of policies, and what they need: followed files, remembered processes.

The trap: a hook is attached at once, since only that shows whether the kernel allows it. It applies no policy until
profiles are set (selector_profiles.py), so no policy is partly in force.
"""

from functools import partial

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.policies.hooks.followed_files import FollowedFiles
from kubectl_gadget.agent.policies.hooks.hook import PolicyHook, share
from kubectl_gadget.agent.policies.hooks.hook_set import HookSet
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.events_output import ring_bytes
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.policy_messages import PolicySpec

_SOCKETS = 16384
"""Sockets whose owner is remembered."""


def load_hooks(spec: PolicySpec, elf: bytes, context: NodeContext, found: HookSet, tolerant: bool = False) -> None:
    """Loads the hooks of `spec`, RUN's gadget, into `found`. `tolerant`: a hook that this node does not have disables
    only its own policies. Raises AgentError; `found.failed` then says which hooks failed, and why."""
    try:
        _load(spec, elf, context, found, tolerant)
    except BaseException:
        found.close()
        raise


def _load(spec: PolicySpec, elf: bytes, context: NodeContext, found: HookSet, tolerant: bool) -> None:
    hooks, prepare, first = found.hooks, partial(_prepare, spec, context), None
    if spec.follows:
        found.followed = FollowedFiles(elf, partial(_prepare_followed, spec, context, found))
        first = found.followed.before()
    for place, of_hook in enumerate(spec.hooks):
        if of_hook.mirrors and any(hook.way.call and hook.mirrors == of_hook.mirrors for hook in hooks):
            continue  # the dispatcher's program sees each variant of the call
        hook = PolicyHook(of_hook, prepare, found.real_files, context.calls, context.warnings.add)
        try:
            twin = next((one for one in hooks if of_hook.mirrors and one.has_tables_of(of_hook)), None)
            if hook.load(elf, hooks[0].object if hooks else first, twin):
                hooks.append(hook)
            elif hook.is_needed:
                context.warnings.add(f"{hook.name} is left out: {hook.skipped[-1].why}")
        except AgentError as error:
            if not tolerant:
                raise
            found.failed[place] = error
            found.without.update(policy for policy in hook.policies if policy >= 0)
    if not hooks:
        raise AgentError("none of the policies' hooks exists on this node")
    if found.followed:
        # Programs at tracepoints of single calls run after the hooks' dispatcher, so another one has to follow.
        is_after = not any(hook.way.target.startswith("syscalls/sys_enter_") for hook in hooks)
        found.followed.after(context.calls if is_after else None)
    if spec.processes is not None:
        found.processes.load(spec.processes.followed, elf, prepare, hooks[0].object)


def _prepare_followed(spec: PolicySpec, context: NodeContext, found: HookSet, object: BpfObject) -> None:
    _prepare(spec, context, object)
    if found.hooks:
        share(object, found.hooks[0].object)


def _prepare(spec: PolicySpec, context: NodeContext, object: BpfObject) -> None:
    size = ring_bytes(spec.ring_bytes)
    # A killer is woken by each event, other readers when there is enough to send.
    node = {"gadget_ring_wake_bytes": size // 4, "gadget_wake_each": bool(spec.kill)}
    for name, value in {**context.variables, **node}.items():
        object.set_constant(name, value)
    object.required_map("gadget_events").resize(size)
    object.required_map("gadget_cpus").resize(libbpf.load().call("libbpf_num_possible_cpus"))
    object.reuse(context.maps.of_containers)
    if not spec.stacks:
        object.required_map("gadget_stacks").resize(1)
    if not spec.follows:
        object.required_map("gadget_followed").resize(1)
    if spec.tracks:
        object.required_map("policy_sockets").resize(_SOCKETS)
