"""Policies on functions and static probes of programs: calls of every process that runs the file, in its own root.

Probes go to files and not to processes, so each test has a program of its own.
"""

import hashlib
import os
import re
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.elf import build_id
from kubectl_gadget.observe.decoders import event
from kubectl_gadget.policies.model import Action, Argument, Hook, HookFilter, Policy, Selector, Subject, UserProbe
from tests.agent.burners import compile_c
from tests.bpf.policy_engine import Enforcer
from tests.waiting import wait_until

pytestmark = pytest.mark.bpf
TIMES = 31
NESTED = 64
"""The kernel does not see more nested calls of one thread return (MAX_URETPROBE_DEPTH)."""
SOURCE = Path(__file__).parent / "programs" / "probed.c"
ARGUMENTS = (Argument(0, "int"), Argument(1, "string"))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may be slow; other tests check the report that nothing was found yet."""
    monkeypatch.setattr("kubectl_gadget.agent.policies.files.PATIENCE", 3600.0)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compile_c(tmp_path / "probed", SOURCE, "-O1", "-Wl,--build-id")


def uprobe(path: Path | str, *selectors: Selector, **more: Any) -> Hook:
    place = {"symbol": "act", **more.pop("place", {})}
    probe = UserProbe(str(path), **place)
    return Hook("uprobe", f"{path}:act", probe=probe, **{"arguments": ARGUMENTS, "selectors": selectors, **more})


def usdt(path: Path, *selectors: Selector) -> Hook:
    probe = UserProbe(str(path), provider="tests", name="act")
    return Hook("usdt", f"{path}:tests:act", probe=probe, arguments=ARGUMENTS, selectors=selectors)


def watching(*hooks: Hook, **options: Any) -> Enforcer:
    return Enforcer(Policy("policy", hooks=hooks), pid=0, **options)


def run(program: Path, times: int = TIMES) -> None:
    subprocess.run([program, str(times)], check=True)


def seen(enforcer: Enforcer) -> list[tuple[int, bytes]]:
    """The number and the text of each match."""
    found = []
    for match in enforcer.matches():
        number, text = match.values
        assert number
        assert text
        found.append((number.numbers[0], text.text))
    return found


def test_each_call_of_a_function_is_seen_with_its_arguments(program: Path) -> None:
    with watching(uprobe(program)) as enforcer:
        run(program)
        assert seen(enforcer) == [(i, b"a text") for i in range(TIMES)]
        assert enforcer.lost == {}


def test_arguments_of_functions_are_filtered_in_the_kernel(program: Path) -> None:
    odd = Selector(
        filters=(
            HookFilter(Subject("argument", 0), "mask", (1,)),
            HookFilter(Subject("argument", 1), "prefix", ("a ",)),
        )
    )
    with watching(uprobe(program, odd)) as enforcer:
        run(program)
        assert [number for number, _ in seen(enforcer)] == [i for i in range(TIMES) if i % 2]


@pytest.mark.parametrize("kind", ["offset", "address"])
def test_a_function_may_be_named_by_where_it_is(kind: str, program: Path) -> None:
    names = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^([0-9a-f]+) T act$", names, re.MULTILINE)
    assert found
    address = int(found[1], 16)
    # Of a program that may lie anywhere, code lies in the file where it lies in memory.
    hook = uprobe(program, place={"symbol": "", kind: address})
    with watching(hook) as enforcer:
        run(program)
        assert len(seen(enforcer)) == TIMES


def test_a_return_is_seen_with_its_value_and_what_the_call_was_given(program: Path) -> None:
    returned = HookFilter(Subject("return"), "less", (-20,))
    hook = uprobe(program, Selector(return_filters=(returned,)), returns=True, return_argument=Argument(0, "int"))
    with watching(hook) as enforcer:
        run(program)
        matches = enforcer.matches()
    numbers = [
        (match.values[0].numbers[0], match.returned.numbers[0])
        for match in matches
        if match.values[0] and match.returned
    ]
    assert numbers == [(i, -i - len("a text")) for i in range(TIMES) if -i - len("a text") < -20]


def test_returns_whose_call_was_dropped_count_as_not_evaluated(tmp_path: Path) -> None:
    """More calls are in progress than there is room for; the first ones return last."""
    deep = 10_000
    source = tmp_path / "deep.c"
    source.write_text(f"""
        __attribute__((noinline)) int act(int left, const char *text)
        {{
            volatile int below = left ? act(left - 1, text) : 0;
            return below + 1;
        }}
        int main(void) {{ return act({deep}, "a text") != {deep} + 1; }}
    """)
    program = compile_c(tmp_path / "deep", source, "-O1")
    with watching(uprobe(program, returns=True, return_argument=Argument(0, "int"))) as enforcer:
        subprocess.run([program], check=True)
        evaluated, counts = len(enforcer.matches()), enforcer.counts()
    assert counts["runs"] == evaluated < NESTED
    assert counts["not evaluated"] == NESTED - evaluated


def test_a_static_probe_is_switched_on_and_its_arguments_are_those_of_its_note(program: Path) -> None:
    with watching(usdt(program)) as enforcer:
        run(program)
        assert seen(enforcer) == [(-i, b"another text") for i in range(TIMES)]


def test_a_static_probes_arguments_are_filtered(program: Path) -> None:
    selector = Selector(filters=(HookFilter(Subject("argument", 0), "greater", (-3,)),))
    with watching(usdt(program, selector)) as enforcer:
        run(program)
        assert [number for number, _ in seen(enforcer)] == [0, -1, -2]


def test_an_argument_that_a_static_probe_lacks_matches_nothing(program: Path) -> None:
    hook = usdt(program)
    fifth = (Argument(5, "int"),)
    for test in ("equal", "greater"):
        selector = Selector(filters=(HookFilter(Subject("argument", 0), test, (0 if test == "equal" else -1,)),))
        with watching(replace(hook, arguments=fifth, selectors=(selector,))) as enforcer:
            run(program)
            assert not enforcer.matches()
    with watching(replace(hook, arguments=fifth)) as enforcer:
        run(program, 1)
        (match,) = enforcer.matches()
    (told,) = event(match, 0).args
    assert (told.kind, told.value, told.text) == ("error", {"Message": "the int cannot be read"}, "-")


def test_who_calls_what_is_forbidden_is_killed(program: Path) -> None:
    third = Selector(filters=(HookFilter(Subject("argument", 0), "equal", (2,)),), actions=(Action("Sigkill"),))
    with watching(uprobe(program, third), enforce=True, allow_weaker=True) as enforcer:
        assert subprocess.run([program, str(TIMES)], check=False).returncode == -9
        assert len(enforcer.matches()) == 1


def test_a_file_that_comes_later_is_found(program: Path) -> None:
    later = program.with_name("later")
    with watching(uprobe(later)) as enforcer:
        program.rename(later)
        look(enforcer)
        run(later)
        assert len(seen(enforcer)) == TIMES


def test_the_file_is_that_of_each_root(program: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "link").symlink_to("/bin/probed")
    static(root / "bin" / "probed")
    with watching(uprobe("/link")) as enforcer:
        inside = ["chroot", root, "/bin/probed", str(TIMES), "wait"]
        with subprocess.Popen(inside, stdin=subprocess.PIPE) as process:
            wait_until(lambda: os.readlink(f"/proc/{process.pid}/root") == str(root))
            look(enforcer)
            process.communicate(b"x")
        assert process.returncode == 0
        assert len(seen(enforcer)) == TIMES


def test_containers_of_one_image_share_a_probe_and_no_call_is_reported_twice(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    static(image / "probed")
    script = "mount -t tmpfs none $2 && mkdir $2/upper $2/work $2/root && "
    layers = "lowerdir=$1,upperdir=$2/upper,workdir=$2/work"
    script += f"mount -t overlay -o {layers} overlay $2/root && exec chroot $2/root /probed"
    processes = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        command = ["unshare", "--mount", "sh", "-ec", f"{script} {TIMES} wait", "sh", image, tmp_path / name]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
    for process in processes:
        wait_until(partial(_has_ended_or_is_inside, process), "the process to end or to enter its root")
    if any(process.poll() is not None for process in processes):
        for process in processes:
            process.kill()
            process.communicate()
        pytest.skip("this kernel mounts no overlay file systems here")
    with watching(uprobe("/probed")) as enforcer:
        for process in processes:
            process.communicate(b"x")
        assert len(seen(enforcer)) == 2 * TIMES


@pytest.mark.parametrize("kind", ["sha256", "build-id"])
def test_only_the_file_with_the_digest_is_probed(kind: str, program: Path) -> None:
    with program.open("rb") as file:
        digest = build_id(file.fileno()) if kind == "build-id" else hashlib.sha256(file.read()).hexdigest()
    assert digest
    right = uprobe(program, place={"digests": (f"{kind}:{digest}",)})
    with watching(right) as enforcer:
        run(program)
        assert len(seen(enforcer)) == TIMES
    wrong = replace(right, probe=replace(right.probe, digests=(f"{kind}:{digest[::-1]}",)))
    with watching(wrong) as enforcer:
        run(program)
        assert enforcer.matches() == []
        (warning,) = enforcer.warnings()
    assert "binaryDigests" in warning


def test_a_function_that_is_not_there_is_reported(program: Path) -> None:
    with watching(uprobe(program, place={"symbol": "no_such_function"})) as enforcer:
        (warning,) = enforcer.warnings()
    assert "no_such_function: the file has no such function" in warning


def _has_ended_or_is_inside(process: "subprocess.Popen[bytes]") -> bool:
    try:
        return process.poll() is not None or os.readlink(f"/proc/{process.pid}/root") != "/"
    except FileNotFoundError:  # it ends just now
        return False


def static(path: Path) -> None:
    compile_c(path, SOURCE, "-O1", "-static")


def look(enforcer: Enforcer) -> None:
    """As the session does, without its pauses."""
    for search in enforcer.context.callbacks.each_turn:
        search.__self__._next_search = 0.0  # type: ignore[attr-defined]
    for hook in enforcer.attached:
        assert hook.probes
        hook.probes._rechecks._next.clear()
    assert enforcer.warnings() == []
