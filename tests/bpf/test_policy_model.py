"""Random policies and random calls: the engine in the kernel decides as the model does (policies.evaluate).

The calls are real ones that do nothing: of lseek on no file, and of faccessat from no directory.
"""

import ctypes
import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent import ways
from kubectl_gadget.policies.evaluate import Call, Process, decide
from kubectl_gadget.policies.model import Argument, Hook, Policy
from tests.bpf.policy_engine import Enforcer
from tests.policies.engine import random_policies as some

pytestmark = pytest.mark.bpf
LSEEK, FACCESSAT = (8, 269) if os.uname().machine == "x86_64" else (62, 48)
NUMBERS = Hook("kprobe", "sys_lseek", True, arguments=(Argument(0, "int"), Argument(1, "int64"), Argument(2, "uint32")))
TEXTS = Hook("kprobe", "sys_faccessat", True, arguments=(Argument(0, "int"), Argument(1, "string")))
INTS, LONGS, UINTS = ((-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1), (0, (1 << 32) - 1))
SETTINGS = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
"""Each example loads programs, which takes longer than all that hypothesis does."""
_syscall = ctypes.CDLL(None, use_errno=True).syscall


@pytest.fixture(params=["trie", "lengths"])
def prefixes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks prefixes up either way; programs that may sleep try their lengths, and here the one of these calls does."""
    if request.param == "lengths":
        monkeypatch.setattr(ways, "SLEEPABLE", "on_tracepoint")


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
