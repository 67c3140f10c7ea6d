"""Profiles: what is in them, what they become, and how they are added to earlier ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise import seccomp
from kubectl_gadget.advise.seccomp import RUNTIME, profiles
from kubectl_gadget.advise.uses import SeenUses, Use
from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Inventory, Pod
from tests.advise.flows import DB, WEB, WEB_2
from tests.behavior.made import behavior, fact

CALLS = ["ptrace", "clone", "clone3", "mkdir", "read", "bind", "swapon"]


def use(pod: Pod, syscall: str, architecture: str = "x86_64", container: str = "main") -> Use:
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "container": container,
        "architecture": architecture,
        "syscall": syscall,
        "count": 3,
    }


def recording(*uses: Use) -> SeenUses:
    made = SeenUses(seccomp.KIND, inventory=Inventory([WEB, WEB_2, DB]))
    made.add(uses)
    return made


def verdict(profile: dict[str, Any], call: str) -> str:
    """What a profile does to a call that meets no condition: as libseccomp, rules of one call add up."""
    actions = [rule["action"] for rule in profile["syscalls"] if call in rule["names"] and not rule.get("args")]
    return actions[0] if actions else profile["defaultAction"]


def test_replicas_make_one_profile_and_containers_one_each() -> None:
    documents = seccomp.advise(
        recording(use(WEB, "mkdir"), use(WEB_2, "bind"), use(WEB, "swapon", container="other")), "profile"
    )
    assert [document.name for document in documents] == ["shop_deployment_web_main", "shop_deployment_web_other"]
    main, other = (set(document.body["syscalls"][0]["names"]) for document in documents)
    assert {"mkdir", "bind"} <= main
    assert "swapon" not in main
    assert "swapon" in other
    assert main - {"mkdir", "bind"} == other - {"swapon"} == seccomp.RUNTIME


def test_a_profile_has_all_architectures_that_were_seen() -> None:
    profile = seccomp.profile([use(WEB, "mkdir"), use(WEB, "mkdir", "aarch64")])
    assert profile["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X86_64"]
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"


def test_threads_may_be_made_and_namespaces_not_unless_clone_was_seen() -> None:
    profile = seccomp.profile([use(WEB, "mkdir")])
    (clone,) = [rule for rule in profile["syscalls"] if rule["names"] == ["clone"]]
    (condition,) = clone["args"]
    assert (condition["index"], condition["op"], condition["valueTwo"]) == (0, "SCMP_CMP_MASKED_EQ", 0)
    flags = {"CLONE_NEWNS": 0x20000, "CLONE_NEWUSER": 0x10000000, "CLONE_NEWNET": 0x40000000}
    assert all(condition["value"] & flag for flag in flags.values())
    assert not condition["value"] & 0x3D0F00, "the flags of pthread_create()"
    assert verdict(profile, "clone3") == "SCMP_ACT_ERRNO"
    seen = seccomp.profile([use(WEB, "clone"), use(WEB, "clone3")])
    assert verdict(seen, "clone") == verdict(seen, "clone3") == "SCMP_ACT_ALLOW"
    assert len(seen["syscalls"]) == 1


def test_calls_without_a_name_are_warned_of_and_left_out() -> None:
    made = recording(use(WEB, "999"), use(WEB, "i386/17"))
    (document,) = seccomp.advise(made, "profile")
    assert set(document.body["syscalls"][0]["names"]) == seccomp.RUNTIME
    told = "\n".join(seccomp.warnings(made))
    assert "999, i386/17" in told


def test_calls_of_32_bit_programs_are_allowed_with_their_architecture_and_warned_of() -> None:
    made = recording(use(WEB, "mkdir"), use(WEB, "i386/socketcall"))
    (document,) = seccomp.advise(made, "profile")
    assert {"mkdir", "socketcall"} <= set(document.body["syscalls"][0]["names"])
    assert document.body["architectures"] == ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]
    [warning] = seccomp.warnings(made)
    assert "the profile allows SCMP_ARCH_X86" in warning
    assert "int 0x80" in warning


def test_a_patch_names_the_file_for_each_container_of_the_workload() -> None:
    (document,) = seccomp.advise(recording(use(WEB, "mkdir"), use(WEB_2, "bind", container="side")), "patch")
    body = document.body
    assert (body["apiVersion"], body["kind"], body["metadata"]["name"]) == ("apps/v1", "Deployment", "web")
    containers = body["spec"]["template"]["spec"]["containers"]
    assert [item["name"] for item in containers] == ["main", "side"]
    assert containers[0]["securityContext"]["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": "profiles/shop_deployment_web_main.json",
    }


def test_the_operators_object_has_what_its_crd_knows() -> None:
    (document,) = seccomp.advise(recording(use(DB, "mkdir")), "SeccompProfile")
    body = document.body
    assert body["apiVersion"] == "security-profiles-operator.x-k8s.io/v1beta1"
    assert body["metadata"] == {"name": "db-main", "namespace": "data"}
    assert set(body["spec"]) == {"defaultAction", "architectures", "syscalls"}
    assert "mkdir" in body["spec"]["syscalls"][0]["names"]


RULES = st.builds(
    lambda names, action, args: {"names": names, "action": action, **({"args": args} if args else {})},
    st.lists(st.sampled_from(CALLS), min_size=1, max_size=3, unique=True),
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"]),
    st.sampled_from([[], [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]]),
)


@given(st.lists(RULES, max_size=4), st.sets(st.sampled_from(CALLS)))
def test_what_was_seen_is_allowed_after_a_merge_and_what_was_allowed_still_is(
    rules: list[dict[str, Any]], seen: set[str]
) -> None:
    earlier = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"], "syscalls": rules}
    before = json.dumps(earlier)
    merged = seccomp.merge(seccomp.profile([use(WEB, call) for call in sorted(seen)] or [use(WEB, "0")]), earlier)
    assert json.dumps(earlier) == before
    for call in seen | seccomp.RUNTIME:
        actions = {rule["action"] for rule in merged["syscalls"] if call in rule["names"]}
        assert actions == {"SCMP_ACT_ALLOW"}, call
        assert any(call in rule["names"] and not rule.get("args") for rule in merged["syscalls"])
    for rule in rules:
        for call in set(rule["names"]) - seen - seccomp.RUNTIME:
            assert [item["action"] for item in merged["syscalls"] if call in item["names"] and item["action"] ==
                    rule["action"] and item.get("args") == rule.get("args")]  # fmt: skip
    assert merged["architectures"] == ["SCMP_ARCH_ARM", "SCMP_ARCH_X86_64"]


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"defaultAction": "SCMP_ACT_ALLOW"}'])
def test_a_file_that_is_not_a_profile_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="earlier"):
        seccomp.read_profile(text, "earlier.json")


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
