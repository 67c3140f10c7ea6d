"""Our equivalents for commands and flags of other tools: bcc, kubectl, strace, tcpdump.

This is used only for names that do not exist here, so it must contain none of our names; a test checks this.
"""

from collections.abc import Mapping
from pathlib import Path

from kubectl_gadget.yaml_files import own_data

_OWN = own_data(Path(__file__).with_suffix(".yaml"))
COMMANDS: Mapping[str, str] = _OWN["commands"]
_FLAGS: Mapping[str, str] = _OWN["flags"]
WATCH = ("-w", "--watch", "-f", "--follow")
"""Flags that make other commands run on; gadget commands do so anyway."""


def instead_of_flag(path: str, flag: str, goes_on: bool) -> str | None:
    """The advice for an unknown flag of the command `path`; None if no other tool has it. `goes_on`: the command runs
    until it is stopped."""
    if found := _FLAGS.get(f"{path.rpartition(' ')[2]} {flag}") or _FLAGS.get(flag):
        return found.replace("PATH", path)
    if flag not in WATCH:
        return None
    if goes_on:
        return f"without {flag}: it goes on until Ctrl-C, or for --timeout 30s"
    return "kubectl gadget trace open, which goes on until Ctrl-C" if path == "kubectl gadget" else None
