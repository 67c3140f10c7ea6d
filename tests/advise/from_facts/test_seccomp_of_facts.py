"""Seccomp profiles from facts."""

import pytest

from kubectl_gadget.advise.from_facts.seccomp_of_facts import profiles
from kubectl_gadget.advise.seccomp import RUNTIME
from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind
from tests.behavior.made import behavior, fact

WITH = USUAL_KINDS | {FactKind.SYSCALL}


@pytest.mark.parametrize(("call", "architectures"), [("ptrace", []), ("i386/ptrace", ["SCMP_ARCH_X86"])])
def test_a_profile_allows_the_calls_of_all_programs_and_those_of_runc(call: str, architectures: list[str]) -> None:
    found = behavior(fact("syscall", "/bin/a", call), fact("syscall", "/bin/b", "mount"), kinds=WITH)

    (document,), _ = profiles(found, "profile")

    assert {"ptrace", "mount", *RUNTIME} == {*document.body["syscalls"][0]["names"]}
    assert document.body["architectures"] == architectures


def test_without_system_calls_there_is_no_profile_that_denies_everything() -> None:
    assert profiles(behavior(fact("syscall", "/bin/a", "ptrace")), "profile") == ([], [])
    assert profiles(behavior(kinds=WITH), "profile") == ([], [])
