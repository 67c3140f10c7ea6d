"""Places of settings: variables of the environment, and a file. This runs at every `--help`."""

import os

PREFIX = "KUBECTL_GADGET_"
FILE = "KUBECTL_GADGET_CONFIG"
"""Environment variable: the path of another file, or `off` for none."""


def file_path() -> str:
    """The path of the configuration file; "" if it is turned off."""
    if named := os.environ.get(FILE):
        return "" if named == "off" else named
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "kubectl-gadget", "config.yaml")


def nothing_is_set() -> bool:
    """True if there can be no setting: usually, so that nothing more is read."""
    return not any(name.startswith(PREFIX) for name in os.environ) and not os.path.exists(file_path())
