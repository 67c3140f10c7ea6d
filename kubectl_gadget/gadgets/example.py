"""Example: in a module of its own, since every help page and completion needs it, and the schema takes 7 ms."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A command line and its purpose."""

    command: str
    description: str
