"""profile cpu: a program that burns CPU in a known chain of functions, by both hooks."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from tests.agent.burners import WAYS, compile_burner
from tests.bpf.stacks import StackAnswers

pytestmark = pytest.mark.bpf

HOOKS = ("clock", "tick")


@contextmanager
def burner(folder: Path, way: str = "pie") -> Iterator[int]:
    """The pid of a process that burns CPU for as long as the test lasts."""
    process = subprocess.Popen([compile_burner(folder / "burner", *WAYS[way])])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def burning(tmp_path: Path) -> Iterator[int]:
    with burner(tmp_path) as pid:
        yield pid


def profile(hook: str, **options: Any) -> StackAnswers:
    return StackAnswers("profile_cpu", programs=(hook,), **options)


def enter(answers: StackAnswers) -> StackAnswers:
    try:
        return answers.__enter__()
    except Failure as failure:
        pytest.skip(f"this kernel refuses it: {failure}")


def samples_of(burning: int, hook: str, least: int = 60, **options: Any) -> list[dict[str, Any]]:
    """Records with so many samples of the process."""
    answers = enter(profile(hook, pid=burning, **options))
    records: list[dict[str, Any]] = []
    try:
        while sum(record["samples"] for record in records) < least:
            answers.watch(0.3)
            records += answers.take()
        assert answers.lost == 0
    finally:
        answers.__exit__(None, None, None)
    return records


@pytest.mark.parametrize(
    ("hook", "way"), [("clock", "pie"), ("clock", "static"), ("tick", "no-pie"), ("tick", "static-pie")]
)
def test_the_chain_of_functions_is_found_with_its_share(tmp_path: Path, hook: str, way: str) -> None:
    found: Counter[tuple[str, ...]] = Counter()
    with burner(tmp_path, way) as pid:
        for record in samples_of(pid, hook, least=150):
            found[tuple(record["user_stack"][:4])] += record["samples"]
    chains = {chain: count for chain, count in found.items() if chain[0] == "spin"}
    # Where it is caught in the two instructions before a function has its frame, the caller is missing.
    assert sum(chains.values()) > 0.9 * found.total()
    heavy, light = chains[("spin", "heavy", "burn", "main")], chains[("spin", "light", "burn", "main")]
    assert heavy + light > 0.9 * found.total()
    assert 0.6 < heavy / (heavy + light) < 0.9


@pytest.mark.parametrize("hook", HOOKS)
def test_time_is_that_of_the_samples_and_nothing_of_the_interrupt_is_in_the_kernels_stacks(
    burning: int, hook: str
) -> None:
    records = samples_of(burning, hook)
    assert {record["pid"] for record in records} == {burning}
    for record in records:
        assert "hrtimer_interrupt" not in record["kernel_stack"]
    time, samples = (sum(record[name] for record in records) for name in ("cpu_time", "samples"))
    # Ticks do not come at the very moment.
    assert time == pytest.approx(samples * 10**9 / 99, rel=1e-6 if hook == "clock" else 0.5)
    in_program = [record for record in records if not record["kernel_stack"]]
    assert sum(record["samples"] for record in in_program) > 0.8 * sum(record["samples"] for record in records)


@pytest.mark.parametrize("hook", HOOKS)
def test_halves_of_stacks_on_request(burning: int, hook: str) -> None:
    assert not any(record["user_stack"] for record in samples_of(burning, hook, kernel_only=True))
    assert not any(record["kernel_stack"] for record in samples_of(burning, hook, user_only=True))


def test_more_samples_than_there_are_ticks_do_not_make_time_shorter(burning: int) -> None:
    records = samples_of(burning, "tick", frequency=9973)
    rate = sum(record["samples"] for record in records) * 10**9 / sum(record["cpu_time"] for record in records)
    # Linux ticks 100 to 1000 times a second; other timers come in between.
    assert rate < 5000


def test_only_the_wanted_process_is_sampled(burning: int) -> None:
    with profile("clock", pid=1 << 22) as answers:
        answers.watch(0.5)
        assert answers.take() == []
