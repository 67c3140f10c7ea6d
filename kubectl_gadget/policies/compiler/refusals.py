"""Rejects valid policies that this engine cannot carry out; errors give the place in the policy.

Each function raises UsageError. The trap: some things are rejected only in installed policies; they work while a client
runs.
"""

from collections.abc import Iterable

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler import file_following, socket_tracking
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.model import Hook, Selector, UserProbe

IN_PROGRAMS = ("uprobe", "usdt")
"""Kinds of hooks that are in a program and not in the kernel."""
REQUESTS = ("GetUrl", "DnsLookup")
_WHILE_IT_RUNS = "kubectl gadget observe -f or enforce -f, which support it while they run"
_PROGRAMS_TYPES = ("string", "char_buf", "sockaddr", "sockaddr_un", "nop", "auto")
"""Types that are not numbers and can be read from a program's own memory."""
_KINDS = (
    "Post",
    "NoPost",
    "Sigkill",
    "Signal",
    "Override",
    "Set",
    *REQUESTS,
    *file_following.KINDS,
    *socket_tracking.KINDS,
)


def check_can_be_installed(hook: Hook, selector: Selector) -> None:
    """Rejects whatever does not outlive the agent that started it."""
    for action in selector.all_actions:
        named = action.kind in (*file_following.KINDS, *socket_tracking.KINDS, *REQUESTS)
        if named or action.kernel_stack or action.user_stack or action.file_hash:
            what = str(action.kind) if named else "a stack or hash"
            raise UsageError(
                f"{action.place}: {what} cannot be installed, since it needs a running agent", _WHILE_IT_RUNS
            )
    if any(argument.max_data for argument in hook.arguments):
        what = "maxData cannot be installed: log lines cannot be that long"
    elif hook.kind == "loader":
        what = "loader cannot be installed, since it needs a running agent"
    elif hook.kind in IN_PROGRAMS:
        what = f"a {hook.kind} cannot be installed, since an agent has to look for its file"
    else:
        return
    raise UsageError(f"{hook.place}: {what}", _WHILE_IT_RUNS)


def check_actions(selector: Selector, hashes: bool) -> None:
    """Rejects unsupported actions and combinations. `hashes`: the hook has a file that imaHash can use."""
    for action in selector.all_actions:
        if action.kind in REQUESTS and any(other.kind == "NoPost" for other in selector.all_actions):
            what = f"{action.kind} cannot be used with NoPost: the agent acts on the event"
            raise UsageError(f"{action.place}: {what}", "remove NoPost")
        if action.kind not in _KINDS:
            raise UsageError(f"{action.place}: the action {action.kind} is not supported yet")
        if action.file_hash and not hashes:
            what = "imaHash is for lsmhooks with a file or a linux_binprm among the first three arguments"
            raise UsageError(f"{action.place}: {what}")


def check_override(hook: Hook, selector: Selector) -> None:
    """Rejects Override with 0 at a kernel function (0 lets the call go on), and Override at a program's function
    whose return is traced."""
    for action in selector.actions:
        if action.kind != "Override":
            continue
        if not hook.probe and not action.error:
            what = "Override with an argError of 0 is not supported, since hooks let a call through with 0"
            raise UsageError(f"{action.place}: {what}", "an error, argError: -1")
        if hook.probe and hook.returns:
            what = "Override at a function whose return is traced would corrupt the program's stack"
            raise UsageError(f"{action.place}: {what}", "a hook of its own, without `return`")


def check_returns(hooks: Iterable[Hook]) -> None:
    """Rejects an override of a program's function when another policy has a hook at its return."""
    found = list(hooks)
    watched: set[UserProbe | None] = {hook.probe for hook in found if hook.returns} - {None}
    for hook in found:
        for selector in hook.selectors if hook.probe in watched else ():
            if any(action.kind == "Override" for action in selector.actions):
                what = f"Override at {hook.target}, whose return a policy traces, would corrupt its stack"
                raise UsageError(f"{selector.place}: {what}")


def check_program(hook: Hook) -> None:
    """Rejects argument types and settings that exist only in the kernel."""
    for argument in (*hook.arguments, *([hook.return_argument] if hook.return_argument else [])):
        if argument.type not in _PROGRAMS_TYPES and ARGUMENT_TYPES[argument.type].group != "number":
            raise UsageError(f"{hook.place}: a {argument.type} is a kernel type, which programs do not have")
        if argument.resolve and not (argument.btf_type and hook.probe and hook.probe.btf_path):
            what = "`resolve` uses the kernel's BTF, which does not describe programs"
            remedy = "set btfPath to a file with the program's BTF, and btfType to the first type"
            raise UsageError(f"{hook.place}: {what}", remedy)
        if argument.btf_module:
            raise UsageError(f"{hook.place}: btfTypeModule names a kernel module, but this hook is in a program")
