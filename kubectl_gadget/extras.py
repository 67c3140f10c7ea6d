"""Packages that only some commands need (`pip install 'kubectl-gadget[query]'`), imported when they are used."""

import importlib
from typing import Any

from kubectl_gadget.errors import UsageError


def require(module: str, what: str, extra: str = "query") -> Any:
    """Imports a module of this extra. Raises UsageError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(
            f"{what} needs the package {package}: {error}", f"pip install 'kubectl-gadget[{extra}]'"
        ) from None
