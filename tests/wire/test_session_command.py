"""The command of a session: one spelling for each meaning, and what of a RUN counts as enforcing."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.payload import payload
from kubectl_gadget.gadgets.compiler import find_clang
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.wire.client_messages import AnyGadget, GadgetSpec
from kubectl_gadget.wire.policy_messages import InstalledSpec, PolicySpec
from kubectl_gadget.wire.session_command import MOST_GADGETS, SessionCommand, could_act, declared_name, enforces

NAMES = st.lists(st.from_regex(r"(own:)?[a-z][a-z0-9_]{0,20}", fullmatch=True), max_size=MOST_GADGETS)
NAMESPACES = st.none() | st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(NAMES, st.booleans(), NAMESPACES)
def test_what_is_written_is_read_again(names: list[str], enforcing: bool, namespace: str | None) -> None:
    command = SessionCommand(tuple(names), enforcing, False, namespace)
    assert SessionCommand.parse(command.words()) == command


@pytest.mark.parametrize(
    "words",
    [
        ["session", "--enforces", "--gadgets=trace_open"],
        ["session", "--gadgets=trace_open", "--contained"],
        ["session", "--contained", "--gadgets=trace_open", "--enforces"],
        ["session", "--contained"],
        ["session", "--contained", "--gadgets="],
        ["session", "--contained", "--gadgets=", "--only-namespace=shop"],
        ["session", "--contained", "--gadgets=own:trace_open"],
        ["session", "--contained", "--contained", "--gadgets=trace_open"],
        ["session", "--gadgets=a", "--gadgets=b"],
        ["session", "--gadgets=a,"],
        ["session", "--gadgets=a b"],
        ["session", "--gadgets=a", "--only-namespace="],
        ["session", "--gadgets=a", "--only-namespace=a/b"],
        ["session", "--gadgets=a", "--only-namespace=-a"],
        ["session", "--gadgets=a", "--only-namespace=a\n"],
        ["session", "--gadgets", "a"],
        ["session", "--gadgets=" + ",".join(["a"] * (MOST_GADGETS + 1))],
        ["session", "idle"],
        ["idle"],
        [],
    ],
)
def test_no_other_spelling_is_valid(words: list[str]) -> None:
    assert SessionCommand.parse(words) is None


def test_the_admission_policy_has_the_same_grammar() -> None:
    objects = {found["kind"]: found for found in manifests.deployment(AgentOptions(contained=True))}
    policy, agent = objects["ValidatingAdmissionPolicy"], objects["DaemonSet"]["spec"]["template"]
    text = "".join(validation["expression"] for validation in policy["spec"]["validations"])
    # Python's $ also matches before a line feed at the end, RE2's does not.
    gadgets, namespace = (found.replace("$", r"\Z") for found in re.findall(r"matches\('(\^--.+?\$)'\)", text))
    for command in (
        SessionCommand(("trace_open",), contained=True, namespace="shop"),
        SessionCommand(("trace_open", "trace_exec"), contained=True, namespace="a-1"),
    ):
        words = manifests.contained_command(command, agent)
        assert re.search(gadgets, words[7])
        assert len(words) == 8 or re.search(namespace, words[8])
        assert words[:7] == (*payload().start, "session", "--contained")
    for wrong in ("--gadgets=", "--gadgets=own:x", "--gadgets=a,", "--gadgets=a b", "x--gadgets=a", "--gadgets=a\nb"):
        assert not re.search(gadgets, wrong)
    for wrong in ("--only-namespace=", "--only-namespace=-a", "--only-namespace=a/b", "--only-namespace=a,b"):
        assert not re.search(namespace, wrong)


def test_an_own_gadget_is_declared_as_such() -> None:
    assert declared_name(GadgetSpec(name="trace_open", object=0)) == "trace_open"
    assert declared_name(GadgetSpec(name="trace_open", object=0, own=True)) == "own:trace_open"


DRY_RUN = {"dry_run": {"offset": 0, "size": 1}}
WAY = {"program": "p", "kind": "kprobe", "target": "t"}


def gadget(**members: object) -> GadgetSpec:
    return GadgetSpec.from_json({"name": "g", "object": 0, **members})


def hook(variables: dict[str, object], *of_ways: dict[str, object]) -> PolicySpec:
    ways = [{**WAY, "variables": each} for each in of_ways]
    found = {"name": "h", "words": 1, "variables": variables, "ways": ways, "selectors": []}
    return PolicySpec.from_json({"name": "policy", "kind": "policy", "scopes": [], "hooks": [found]})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (gadget(), False),
        (gadget(globals=DRY_RUN), True),
        (gadget(globals=DRY_RUN, parameters={"dry_run": True}), False),
        (gadget(globals=DRY_RUN, parameters={"dry_run": 0}), True),
        # Values that are no numbers, of which the program sees a zero.
        (gadget(globals=DRY_RUN, parameters={"dry_run": {"hex": "00"}}), True),
        (gadget(globals=DRY_RUN, parameters={"dry_run": "\0"}), True),
        (hook({"policy_signals": False}, {}), False),
        (hook({"policy_signals": True}), True),
        (hook({"policy_signals": {"hex": "01"}}), True),
        (hook({"policy_sets": True}), True),
        (hook({}, {"policy_overrides": True}), True),
        # A way may set any variable of the hook anew.
        (hook({}, {}, {"policy_signals": True}), True),
        (hook({}, {"policy_sets": True}), True),
        (hook({"policy_overrides": True}, {}), True),
        (hook({}).replace(kill={0: 1}), True),
        (InstalledSpec(name="installed", kind="installed"), False),
    ],
)
def test_what_enforces_is_reported_by_what_the_programs_go_by(spec: AnyGadget, expected: bool) -> None:
    assert enforces(spec) is expected


# What a BPF object could do is found in what the kernel would run, not in what its author calls it.


pytestmark = pytest.mark.compiled
HEAD = """
#define SEC(NAME) __attribute__((section(NAME), used))
static long (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_send_signal)(unsigned int) = (void *)109;
static long (*bpf_probe_write_user)(void *, const void *, unsigned int) = (void *)36;
static long (*bpf_override_return)(void *, unsigned long) = (void *)58;
static long (*newest)(void) = (void *)212;
extern int bpf_sock_destroy(void *) __attribute__((section(".ksyms")));
extern int weakly(void *) __attribute__((section(".ksyms"), weak));
const volatile _Bool dry_run = 1;
char LICENSE[] SEC("license") = "GPL";
static __attribute__((noinline)) int of_text(void *context) { return bpf_send_signal(9); }
"""
OBSERVES = 'SEC("tp_btf/sched_switch") int first(void *context) { return bpf_get_current_pid_tgid(); }\n'


def compiled(folder: Path, code: str) -> bytes:
    clang = find_clang()
    if clang is None:
        pytest.skip("needs clang")
    source, target = folder / "own.c", folder / "own.o"
    source.write_text(HEAD + OBSERVES + code)
    subprocess.run([clang, "-target", "bpf", "-O2", "-g", "-c", source, "-o", target], check=True)
    return target.read_bytes()


@pytest.mark.parametrize(
    "code",
    [
        "",
        *(
            f'SEC("{section}") int second(void *context) {{ return bpf_get_current_pid_tgid() > 1; }}'
            for section in ("kprobe", "?fentry/do_exit", "iter/task", "raw_tp/sys_enter", "perf_event")
        ),
    ],
)
def test_what_only_observes_is_known(tmp_path: Path, code: str) -> None:
    assert not could_act(compiled(tmp_path, code))


@pytest.mark.parametrize(
    "code",
    [
        # The switch is as the author wants it to be.
        'SEC("kprobe") int second(void *context) { return dry_run ? 0 : bpf_send_signal(9); }',
        'SEC("kprobe") int second(void *context) { return bpf_probe_write_user(context, context, 1); }',
        'SEC("kprobe") int second(void *context) { return bpf_override_return(context, 1); }',
        'SEC("kprobe") int second(void *context) { return newest(); }',
        # Functions are in a section of their own, also of programs that are not loaded at first.
        'SEC("?kprobe") int second(void *context) { return of_text(context); }',
        'SEC("iter/tcp") int second(void *context) { return bpf_sock_destroy(context); }',
        'SEC("iter/tcp") int second(void *context) { return weakly ? weakly(context) : 0; }',
        *(
            f'SEC("{section}") int second(void *context) {{ return 1; }}'
            for section in (
                *("lsm/file_open", "?lsm.s/file_open", "fmod_ret/security_file_open", "cgroup_skb/egress", "xdp", "tc"),
                *("cgroup/connect4", "uprobe", "uprobe//bin/sh:main", "usdt", "raw_tp.w/x", "struct_ops/x", "syscall"),
                *("freplace/x", "of_nothing_known"),
            )
        ),
    ],
)
def test_what_could_act_is_found(tmp_path: Path, code: str) -> None:
    assert could_act(compiled(tmp_path, code))


def test_what_cannot_be_read_counts_as_acting(tmp_path: Path) -> None:
    elf = compiled(tmp_path, "")
    other_order, no_sections = b"\x7fELF\x02\x02\x01" + elf[7:], elf[:60] + bytes(4) + elf[64:]
    for spoilt in (b"", b"\x7fELF", elf[:100], elf[:-64], other_order, no_sections):
        assert could_act(spoilt)
