"""What is reported of policies that are not enforced."""

import pytest

from kubectl_gadget.policies.compiler.policies import CompiledPolicies, metadata_of
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.model import Action, Hook, NewFunction, Policy, Selector, UserProbe
from kubectl_gadget.policies.read.values import assignment
from kubectl_gadget.yaml_files import Place
from kubectl_gadget.yaml_reader import Scalar

RAX = assignment(Scalar("rax=0", Place("p.yaml", 1, "")))


@pytest.mark.parametrize(
    ("action", "would_be"),
    [
        (Action("Override", error=-13), "BLOCKED EACCES"),
        (Action("Override", instead=NewFunction("other")), "BLOCKED function"),
        (Action("Override", registers=(RAX,)), "SET registers"),
        (Action("Override"), "SET registers"),
        (Action("Sigkill"), "SENT SIGKILL"),
        (Action("Post"), ""),
    ],
)
def test_what_would_be_done_is_in_words(action: Action, would_be: str) -> None:
    probe = UserProbe("/bin/true", symbol="main")
    hook = Hook("uprobe", "/bin/true:main", probe=probe, selectors=(Selector(actions=(action,)),))
    (compiled,) = CompiledPolicies([Policy("p", hooks=(hook,))], CompilerOptions()).hooks
    (place,) = [place for place in compiled.bits if place]
    assert metadata_of(place).would_be == would_be
