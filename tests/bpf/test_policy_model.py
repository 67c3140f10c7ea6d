"""Random policies and random calls: the engine in the kernel decides as the model does (tests.policies.model).

The calls are real ones: of lseek on no file, and of faccessat from no directory; connections on loopback; and opens of
files, by each way to a security hook in turn, where what the call returns is compared as well.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.kernel import hooks
from kubectl_gadget.policies.compiler.policies import Match, matches
from kubectl_gadget.policies.model import Action, Argument, Hook, HookFilter, Policy, Selector, Subject
from tests.bpf.policy_engine import Enforcer, in_force
from tests.policies.compiler import random_policies as some
from tests.policies.oracle import ArgumentValue, Call, ConnectionArgument, FileArgument, Process, decide, verdict

pytestmark = pytest.mark.bpf
LSEEK, FACCESSAT = (8, 269) if os.uname().machine == "x86_64" else (62, 48)
NUMBERS = Hook("kprobe", "sys_lseek", True, arguments=(Argument(0, "int"), Argument(1, "int64"), Argument(2, "uint32")))
TEXTS = Hook("kprobe", "sys_faccessat", True, arguments=(Argument(0, "int"), Argument(1, "string")))
INTS, LONGS, UINTS = ((-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1), (0, (1 << 32) - 1))
SETTINGS = settings(
    deadline=None,
    max_examples=min(25, settings.default.max_examples),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
"""Each example loads programs, which takes longer than all that hypothesis does."""
_syscall = ctypes.CDLL(None, use_errno=True).syscall


@pytest.fixture(params=["trie", "lengths"])
def prefixes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks prefixes up either way; programs that may sleep try their lengths, and here the one of these calls does."""
    if request.param == "lengths":
        monkeypatch.setattr(hooks, "SLEEPABLE", "on_tracepoint")


def in_kernel(policies: Sequence[Policy], number: int, calls: Sequence[tuple[int | bytes, ...]]) -> list[list[object]]:
    """For each call, the policies and selectors that matched it."""
    found = []
    with Enforcer(*policies) as enforcer:
        for call in calls:
            arguments = (ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_long(value) for value in call)
            _syscall(ctypes.c_long(number), *arguments)
            found.append([(match.place.policy.name, match.place.number) for match in enforcer.matches()])
        assert enforcer.lost == {}
    return found


def in_model(policies: Sequence[Policy], hook: Hook, calls: Sequence[tuple[int | str, ...]]) -> list[list[object]]:
    """The same by the model."""
    return [
        [
            (decision.policy, decision.selector)
            for decision in decide(
                policies,
                lambda policy: policy.hooks,
                Call(Process(), dict(zip(hook.arguments, call, strict=True))),
            )
        ]
        for call in calls
    ]


NUMBER_CALLS = st.tuples(st.just(-1), some.numbers(*LONGS), some.numbers(*UINTS))


@SETTINGS
@given(
    some.policies(
        NUMBERS,
        st.one_of(
            some.number_filters(0, *INTS),
            some.number_filters(1, *LONGS),
            some.number_filters(2, *UINTS),
            some.expression_filters(0, 1, 2),
        ),
    ),
    st.lists(NUMBER_CALLS, min_size=1, max_size=30),
)
def test_numbers_match_as_in_the_model(policies: list[Policy], calls: list[tuple[int, ...]]) -> None:
    assert in_kernel(policies, LSEEK, calls) == in_model(policies, NUMBERS, calls)


@pytest.mark.usefixtures("prefixes")
@settings(SETTINGS, suppress_health_check=[*HealthCheck])
@given(
    some.policies(TEXTS, st.one_of(some.number_filters(0, *INTS), some.text_filters(1))),
    st.lists(st.tuples(st.just(-1), some.TEXTS), min_size=1, max_size=30),
)
def test_texts_match_as_in_the_model(policies: list[Policy], calls: list[tuple[int | str, ...]]) -> None:
    raw = [tuple(value.encode() if isinstance(value, str) else value for value in call) for call in calls]
    assert in_kernel(policies, FACCESSAT, raw) == in_model(policies, TEXTS, calls)


STATES = Hook(
    "raw_tracepoint",
    "sock/inet_sock_set_state",
    arguments=(Argument(0, "sock"), Argument(1, "int"), Argument(2, "int")),
)
LOOPBACK = ("127.0.0.1", "::1") if Path("/proc/net/if_inet6").exists() else ("127.0.0.1",)
PORTS = st.permutations(range(1, 7)).map(lambda ports: ports[:2])
"""Two that are not the same, as few as the filters have (some.PORTS)."""


@settings(SETTINGS, max_examples=min(10, SETTINGS.max_examples))
@given(
    some.policies(
        STATES, st.one_of(some.socket_filters(0), some.number_filters(1, *INTS), some.number_filters(2, *INTS))
    ),
    st.lists(st.tuples(st.sampled_from(LOOPBACK), PORTS), min_size=1, max_size=8),
)
def test_connections_match_as_in_the_model(
    policies: list[Policy], connections: list[tuple[str, tuple[int, int]]]
) -> None:
    # The last one has no selectors, so each change of a socket's state is a record.
    with Enforcer(*policies, Policy("all", hooks=(STATES,))) as enforcer:
        for address, ports in connections:
            connect(address, *ports)
        records = [list(matches(record, enforcer.engine.hooks)) for record in enforcer.records()]
        assert enforcer.lost == {}
    assert len(records) >= 2 * len(connections)
    for found in records:
        call = Call(Process(), as_read(found[-1]))
        decisions = decide(policies, lambda policy: policy.hooks, call)
        assert [(one.place.policy.name, one.place.number) for one in found[:-1]] == [
            (one.policy, one.selector) for one in decisions
        ]


def connect(address: str, port: int, source: int) -> None:
    """A connection that leaves neither port in use."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server, socket.socket(family) as client:
        for each, number in ((server, port), (client, source)):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.bind((address, number))
        server.listen()
        client.connect((address, port))
        server.accept()[0].close()


def as_read(match: Match) -> dict[Argument, ArgumentValue]:
    """What the kernel read, as the model takes it."""
    read, before, now = match.values
    assert read is not None
    assert before is not None
    assert now is not None
    source_port, destination_port, protocol, family, state = read.numbers[:5]
    source, destination = read.addresses
    connection = ConnectionArgument(family, protocol, state, source, destination, source_port, destination_port)
    return dict(zip(STATES.arguments, (connection, before.numbers[0], now.numbers[0]), strict=True))


FILES = Hook("kprobe", "security_file_open", arguments=(Argument(0, "file"),))
NAMES = ("a", "A", "b", "aé", "abA", "Ab", "bbbbb/a", "bbbbb/ab")
BINARY = os.path.realpath(sys.executable)
ERRORS = st.sampled_from([1, 2, 13]).map(lambda error: (Action("Override", error=-error),))
NEVER = Selector(
    filters=(HookFilter(Subject("argument", 0), "equal", ("/nowhere",)),), actions=(Action("Override", error=-1),)
)
WAYS = {"lsm": True, "fmod_ret": True, "fentry": False, "kprobe": False}
"""True if it denies."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    os.link(folder / "a", folder / "linked")
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_files_are_reported_and_denied_as_in_the_model(way: str, folder: Path) -> None:
    denies = WAYS[way]
    below = HookFilter(Subject("argument", 0), "prefix", (f"{folder}/",))
    filters = st.one_of(
        some.file_filters(0, str(folder), (*NAMES, "linked")), some.process_filters(os.getpid(), BINARY)
    )
    actions = st.one_of(some.NO_ACTIONS, ERRORS) if denies else some.NO_ACTIONS

    @settings(SETTINGS, max_examples=3)
    @given(some.policies(FILES, filters, actions, least=6))
    def compare(policies: list[Policy]) -> None:
        # What else this process opens meanwhile is not meant, and has to work.
        policies = [limited(policy, below) for policy in policies]
        if denies:  # which the ways to a policy that denies do
            policies.append(Policy("denies", hooks=(replace(FILES, selectors=(NEVER,)),)))
        decided = [in_model_open(policies, folder, name) for name in (*NAMES, "linked")]
        with in_force(*policies, enforce=denies, kinds=(way,)) as enforcer:
            assert enforcer.hooks[0].partition("/")[0] == way
            assert [opened(enforcer, folder / name) for name in (*NAMES, "linked")] == decided

    compare()


def limited(policy: Policy, only: HookFilter) -> Policy:
    (hook,) = policy.hooks
    selectors = [replace(one, filters=(only, *one.filters)) for one in hook.selectors or (Selector(),)]
    return replace(policy, hooks=(replace(hook, selectors=tuple(selectors)),))


def opened(enforcer: Enforcer, path: Path) -> tuple[object, int]:
    """The policies and selectors that matched an open, and the error that it ended with; 0: none."""
    error = 0
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as denied:
        error = denied.errno or -1
    found = [(match.place.policy.name, match.place.number) for match in enforcer.matches()]
    assert enforcer.lost == {}
    return found, error


def in_model_open(policies: Sequence[Policy], folder: Path, name: str) -> tuple[object, int]:
    """The same by the model."""
    identities = {str(path): identity(path) for path in folder.rglob("*")}
    path = str(folder / name)
    call = Call(
        Process(os.getpid(), binary=BINARY),
        {FILES.arguments[0]: FileArgument(path, 0o100000, identities[path])},
        identities,
    )
    decisions = decide(policies, lambda policy: policy.hooks, call)
    return [(one.policy, one.selector) for one in decisions], -(verdict(decisions).error or 0)


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
