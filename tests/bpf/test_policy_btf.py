"""`resolve` by other types than the kernel's own: a program's, by btfPath, and a kernel module's, by btfTypeModule."""

import ctypes
import fcntl
import lzma
import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from kubectl_gadget.errors import AgentError, UsageError
from kubectl_gadget.policies.compiler.policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.bpf.policy_engine import Enforcer, in_force
from tests.vm.machine import CACHE

pytestmark = pytest.mark.bpf
TIMES = 31
TYPES = """
struct part { char name[16]; long number; };
struct request { char padding[3]; int kind; struct part *other; struct part own; };
"""
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
%s
__attribute__((noinline)) int handle(struct request *request)
{
	__asm__ volatile("" ::"r"(request) : "memory");
	return request->kind;
}

int main(int count, char **arguments)
{
	struct part other = {.number = 7};
	struct request request = {.other = &other, .own = {.number = -5}};

	snprintf(other.name, sizeof(other.name), "other");
	for (int i = 0; i < atoi(arguments[1]); i++) {
		request.kind = i;
		snprintf(request.own.name, sizeof(request.own.name), "own %%d", i);
		handle(&request);
	}
	return 0;
}
"""
POLICY = """apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: types}
spec:
  uprobes:
  - path: %s
    %s
    symbols: [handle]
    args:
    - {index: 0, type: int, btfType: request, resolve: kind}
    - {index: 0, type: string, btfType: request, resolve: other.name}
    - {index: 0, type: string, btfType: request, resolve: own.name}
    - {index: 0, type: long, btfType: request, resolve: %s}
    selectors:
    - matchArgs:
      - {args: [2], operator: Prefix, values: ["own 1"]}
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    source, path = tmp_path / "program.c", tmp_path / "program"
    source.write_text(PROGRAM % TYPES)
    subprocess.run(["gcc", "-O1", "-o", path, source], check=True)
    return path


@pytest.fixture
def types(tmp_path: Path) -> Path:
    """A file with BTF. That of 64-bit programs has the same layout as that of BPF, which the compiler writes."""
    source, path = tmp_path / "types.c", tmp_path / "types.o"
    source.write_text(f"{TYPES}\nint used(struct request *request) {{ return request->kind; }}\n")
    subprocess.run(["clang-19", "-g", "-O1", "--target=bpf", "-c", "-o", path, source], check=True)
    return path


def policy(program: Path, file: str, last: str = "own.number") -> Policy:
    (found,) = parse_policies([("policy.yaml", POLICY % (program, file, last))], "default")
    return found


def test_members_of_a_programs_structures_are_read_by_the_types_of_a_file(program: Path, types: Path) -> None:
    with Enforcer(policy(program, f"btfPath: {types}"), pid=0) as enforcer:
        subprocess.run([program, str(TIMES)], check=True)
        told = [
            (kind.numbers[0], other.text, own.text, number.numbers[0])
            for kind, other, own, number in (match.values for match in enforcer.matches())
            if kind and other and own and number
        ]
    wanted = [number for number in range(TIMES) if str(number).startswith("1")]
    assert told == [(number, b"other", b"own %d" % number, -5) for number in wanted]


def test_what_the_file_does_not_say_is_refused_with_the_reason(program: Path, types: Path, tmp_path: Path) -> None:
    for file, last, why in (
        (types, "own.numbers", "part has no member numbers"),
        (tmp_path / "nothing", "own.number", "cannot be read on the node: No such file"),
        (program, "own.number", "has no BTF that can be read"),
    ):
        with pytest.raises(AgentError, match=why), Enforcer(policy(program, f"btfPath: {file}", last)):
            pass


def test_without_a_file_there_is_nothing_to_go_by(program: Path) -> None:
    with pytest.raises(UsageError, match="does not describe programs"):
        CompiledPolicies([policy(program, "")], CompilerOptions())


OF_MODULE = """apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: types}
spec:
  kprobes:
  - call: tun_get_user
    syscall: false
    args: [{index: 0, type: uint32, btfType: tun_struct, btfTypeModule: MODULE, resolve: flags}]
"""
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000


@pytest.fixture
def tun() -> None:
    """The kernel's module of that name, with its types; the test is skipped where there is none."""
    if not Path("/sys/kernel/btf/tun").exists():
        for file in CACHE.glob(f"root/**/lib/modules/{os.uname().release}/kernel/drivers/net/tun.ko*"):
            load_module(file)
    if not Path("/sys/kernel/btf/tun").exists():
        pytest.skip("the kernel has no module tun with BTF")


def load_module(file: Path) -> None:
    data = file.read_bytes()
    data = lzma.decompress(data) if file.suffix == ".xz" else data
    number = 175 if os.uname().machine == "x86_64" else 105
    assert ctypes.CDLL(None, use_errno=True).syscall(number, data, len(data), b"") == 0, os.strerror(ctypes.get_errno())


def test_a_kernel_modules_structures_are_read_by_its_own_types(tun: None) -> None:
    (found,) = parse_policies([("policy.yaml", OF_MODULE.replace("MODULE", "tun"))], "default")
    with in_force(found) as enforcer, open("/dev/net/tun", "r+b", buffering=0) as device:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tests0", IFF_TAP | IFF_NO_PI))
        with suppress(OSError):  # it is not up
            device.write(bytes(60))
        (match,) = enforcer.matches()
    (flags,) = match.values
    assert flags
    assert flags.numbers[0] & 0xFFFF & (IFF_TAP | IFF_NO_PI | 1) == IFF_TAP | IFF_NO_PI


def test_a_module_that_is_not_there_is_named() -> None:
    hook = OF_MODULE.replace("MODULE", "nothing").replace("kprobes", "tracepoints")
    hook = hook.replace(
        "call: tun_get_user\n    syscall: false", "subsystem: sched\n    event: sched_switch\n    raw: true"
    )
    (found,) = parse_policies([("policy.yaml", hook)], "default")
    with pytest.raises(AgentError, match="the BTF of the kernel module nothing cannot be read"), Enforcer(found):
        pass
