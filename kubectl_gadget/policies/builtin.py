"""The policies that ship with this program: manifests/policies/NAME.yaml.

An installed package has them in kubectl_gadget/built, the source tree in manifests/.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.similar_names import did_you_mean

SUMMARY = "gadget/summary"
"""Annotation: one line of text for lists."""


@dataclass(frozen=True)
class BuiltinPolicy:
    """One policy that ships with this program."""

    name: str
    path: Path
    policy: Policy

    @property
    def summary(self) -> str:
        """One line of text for lists."""
        return self.policy.annotations.get(SUMMARY, "")


def read_builtin_policies() -> list[BuiltinPolicy]:
    """All built-in policies, sorted by name. Raises GadgetError when the package has none."""
    found = []
    for path in sorted(_folder().glob("*.yaml")):
        (policy,) = parse_policies([(str(path), path.read_text(encoding="utf-8"))], "default")
        found.append(BuiltinPolicy(path.stem, path, policy))
    return found


def builtin_files(names: Sequence[str]) -> list[str]:
    """The files of the named policies. Raises UsageError, which suggests similar names, when there is no such
    policy."""
    known = {path.stem: str(path) for path in _folder().glob("*.yaml")} if names else {}
    for name in names:
        if name not in known:
            near = did_you_mean(name, sorted(known))
            raise UsageError(f"there is no policy {name!r}{near}", "kubectl gadget policy list")
    return [known[name] for name in names]


def _folder() -> Path:
    package = Path(str(files("kubectl_gadget")))
    for folder in (package / "built" / "manifests" / "policies", package.parent / "manifests" / "policies"):
        if folder.is_dir():
            return folder
    raise GadgetError("this package has no policies", "install it again")
