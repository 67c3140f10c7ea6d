"""`kubectl gadget ci step NAME`: marks a step in the run around this command."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kubectl_gadget.cli.ci.ci_flags import require_posix
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Text, flag
from kubectl_gadget.errors import UsageError

State = Annotated[
    Text, flag(SHOW, "--state FOLDER", "State of ci start (default: .kubectl-gadget-ci in the current folder)")
]
Names = Annotated[tuple[str, ...], typer.Argument(metavar="NAME")]


def step(names: Names, state: State = None) -> int:
    require_posix()
    from kubectl_gadget.session.ci.job_steps import ask

    if len(names) != 1:
        raise UsageError("name exactly one step", "kubectl gadget ci step NAME; in quotes, if it has spaces")
    ask(folder(state), {"step": names[0]})
    return 0


def folder(state: str | None) -> Path:
    from kubectl_gadget.session.ci.background import DEFAULT_FOLDER
    from kubectl_gadget.session.ci.job_steps import ENVIRONMENT

    return Path(state or os.environ.get(ENVIRONMENT) or DEFAULT_FOLDER).absolute()
