"""Loads and attaches the hooks of a set of policies, and what they need: followed files, remembered processes.

The trap: a hook is attached at once, since only that shows whether the kernel allows it. It applies no policy until
profiles are set (profiles.py), so no policy is partly in force.
"""

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
        _Loader(spec, elf, context, found).load(tolerant)
    except BaseException:
        found.close()
        raise


class _Loader:
    def __init__(self, spec: PolicySpec, elf: bytes, context: NodeContext, found: HookSet) -> None:
        self._spec = spec
        self._elf = elf
        self._context = context
        self._found = found

    def load(self, tolerant: bool) -> None:
        first = self._followed_files()
        hooks = self._found.hooks
        for place, spec in enumerate(self._spec.hooks):
            if spec.mirrors and any(hook.way.call and hook.mirrors == spec.mirrors for hook in hooks):
                continue  # the dispatcher's program sees each variant of the call
            hook = PolicyHook(
                spec, self._prepare, self._found.real_files, self._context.calls, self._context.warnings.add
            )
            try:
                twin = next((one for one in hooks if spec.mirrors and one.has_tables_of(spec)), None)
                if hook.load(self._elf, hooks[0].object if hooks else first, twin):
                    hooks.append(hook)
                elif hook.is_needed:
                    self._context.warnings.add(f"{hook.name} is left out: {hook.skipped[-1].why}")
            except AgentError as error:
                if not tolerant:
                    raise
                self._found.failed[place] = error
                self._found.without.update(policy for policy in hook.policies if policy >= 0)
        if not hooks:
            raise AgentError("none of the policies' hooks exists on this node")
        if self._found.followed:
            # Programs at tracepoints of single calls run after the hooks' dispatcher, so another one has to follow.
            is_after = not any(hook.way.target.startswith("syscalls/sys_enter_") for hook in hooks)
            self._found.followed.after(self._context.calls if is_after else None)
        if self._spec.processes is not None:
            self._found.processes.load(self._spec.processes.followed, self._elf, self._prepare, hooks[0].object)

    def _followed_files(self) -> BpfObject | None:
        """Returns an object whose maps the hooks must share, if policies follow files and it is loaded first."""
        if not self._spec.follows:
            return None

        def prepare(object: BpfObject) -> None:
            self._prepare(object)
            if self._found.hooks:
                share(object, self._found.hooks[0].object)

        self._found.followed = FollowedFiles(self._elf, prepare)
        return self._found.followed.before()

    def _prepare(self, object: BpfObject) -> None:
        size = ring_bytes(self._spec.ring_bytes)
        # A killer is woken by each event, other readers when there is enough to send.
        node = {"gadget_ring_wake_bytes": size // 4, "gadget_wake_each": bool(self._spec.kill)}
        for name, value in {**self._context.variables, **node}.items():
            object.set_constant(name, value)
        object.required_map("gadget_events").resize(size)
        object.required_map("gadget_cpus").resize(libbpf.load().call("libbpf_num_possible_cpus"))
        object.reuse(self._context.maps.of_containers)
        if not self._spec.stacks:
            object.required_map("gadget_stacks").resize(1)
        if not self._spec.follows:
            object.required_map("gadget_followed").resize(1)
        if self._spec.tracks:
            object.required_map("policy_sockets").resize(_SOCKETS)
