"""Where the kernel's tracepoints and traceable functions are listed."""

import os

FOLDERS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


def tracefs() -> str | None:
    """Returns the folder where tracefs is mounted; None when it is not."""
    return next((folder for folder in FOLDERS if os.path.isdir(f"{folder}/events")), None)
