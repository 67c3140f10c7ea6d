"""`kubectl gadget run FILE.bpf.c|DIR|FILE.yaml`: runs the user's own gadget, with the flags that it defines.

The path is used as the name of a sub-command, so that everything after it is read as for a built-in gadget. The trap:
the flags are known only after the C has been compiled, so even `run DIR --help` compiles.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_gadget.cli.commands.gadgets import gadget_command
from kubectl_gadget.cli.flags.run_flags import RunFlags
from kubectl_gadget.cli.framework.command import GadgetCommand, GadgetGroup, GroupParts, make_group
from kubectl_gadget.cli.help.help_pages import page_of

if TYPE_CHECKING:
    from typer._click.core import Context


class OwnGadgets(GadgetGroup):
    """A group that takes the path of a gadget as a sub-command."""

    def get_command(self, ctx: "Context | None", cmd_name: str) -> GadgetCommand:
        """Compiles the gadget at the path `cmd_name` and makes its command."""
        from kubectl_gadget.gadgets import load_own
        from kubectl_gadget.rows.members import check_readable

        gadget, directory = load_own(Path(cmd_name))
        check_readable(gadget, cmd_name)
        return gadget_command(gadget, cmd_name, directory)


def run_group() -> GadgetGroup:
    """`kubectl gadget run`."""
    parts = GroupParts(partial(page_of, "run"), {}, noun="gadget", kind=OwnGadgets)
    return make_group({"flags": RunFlags}, "run", parts)
