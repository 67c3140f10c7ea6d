"""imaHash: the hash that the kernel has of a file, in the event of a security hook.

Where the kernel has not measured the file it does so there and then, by reading it, and a file that is just being
opened cannot be read yet. So file_open has the hash of what IMA's own policy has measured before, and of nothing else.
"""

import hashlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.policies.model import Action, Argument, Hook, HookFilter, Policy, Selector, Subject, Test, Value
from tests.bpf import fuse
from tests.bpf.policy_engine import in_force

pytestmark = pytest.mark.bpf
EACCES = 13
POST = Action("Post", file_hash=True)
DENY = Action("Override", error=-EACCES)
PROGRAM, FILE = Argument(0, "linux_binprm"), Argument(0, "file")


def hashing(hook: str, argument: Argument, *selectors: Selector) -> Policy:
    return Policy("hash", hooks=(Hook("lsm", hook, arguments=(argument,), selectors=selectors),))


def of(test: Test, *values: Value, deny: bool = False, negated: bool = False) -> Selector:
    filters = (HookFilter(Subject("argument", 0), test, values, negated),)
    return Selector(filters=filters, actions=(POST, DENY) if deny else (POST,))


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy("/bin/true", tmp_path / "program"))


def exit_code(program: Path) -> int:
    try:
        return subprocess.run([program], check=False).returncode
    except PermissionError:
        return EACCES


def test_a_program_that_is_run_has_its_hash_in_the_event(program: Path) -> None:
    with in_force(hashing("bprm_check_security", PROGRAM, of("equal", str(program))), pid=0) as enforcer:
        assert exit_code(program) == 0
        with program.open("ab") as file:
            file.write(b"another one")
        assert exit_code(program) == 0
        first, second = (match.found.hash for match in enforcer.matches())
    assert first == sha256(Path("/bin/true"))
    assert second == sha256(program)


def test_a_program_that_is_denied_has_its_hash_in_the_event(program: Path) -> None:
    policy = hashing("bprm_check_security", PROGRAM, of("prefix", f"{program.parent}/", deny=True))
    with in_force(policy, enforce=True, pid=0) as enforcer:
        assert exit_code(program) == EACCES
        assert [(match.found.hash, match.found.verdict) for match in enforcer.matches()] == [(sha256(program), -EACCES)]


def test_a_file_that_has_been_opened_has_its_hash_in_the_event(program: Path) -> None:
    with in_force(hashing("file_post_open", FILE, of("postfix", "/program")), pid=os.getpid()) as enforcer:
        program.read_bytes()
        assert [match.found.hash for match in enforcer.matches()] == [sha256(program)]


def test_selectors_are_distinguished_by_texts_of_all_lengths(
    program: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where programs that may sleep look up no tries, lengths are tried one after the other."""
    selectors = (
        of("equal", f"{program}x"),
        of("prefix", f"{program.parent}/", negated=True),
        of("postfix", "/gram"),
        of("prefix", f"{program.parent}/pro"),
        of("prefix", "/"),
    )
    # Not the one in /bin, which is served by FUSE in the virtual machine.
    other = Path(shutil.copy("/bin/true", tmp_path_factory.mktemp("elsewhere") / "other"))
    with in_force(hashing("bprm_check_security", PROGRAM, *selectors), pid=0) as enforcer:
        for name in (program, other):
            exit_code(name)
        found = [(match.place.number, match.found.hash) for match in enforcer.matches()]
    assert (3, sha256(program)) in found
    assert (1, sha256(other)) in found
    assert {number for number, _ in found} <= {1, 3}


MANY = 4 * libbpf.load().call("libbpf_num_possible_cpus") + 1
"""One more than there is memory for (GADGET_SLOT_COUNT)."""


def test_a_file_system_that_does_not_answer_takes_no_memory_from_others(program: Path, tmp_path: Path) -> None:
    """The kernel would read the file for its hash, which takes as long as its server likes."""
    opened = hashing("file_post_open", FILE, of("postfix", "/program"), of("postfix", "-served"))
    files = {f"{number}-served": b"text" for number in range(MANY)}
    folder = tmp_path / "mount"
    with in_force(opened, pid=0) as enforcer, fuse.mounted(folder, files, {fuse.READ}) as server:
        threads = [threading.Thread(target=(folder / name).read_bytes) for name in files]
        for thread in threads:
            thread.start()
        server.wait(MANY)
        program.read_bytes()
        found = {os.fsdecode(match.values[0].text): match.found.hash for match in enforcer.matches() if match.values[0]}
        not_evaluated = enforcer.counts()["not evaluated"]
        server.release()
        for thread in threads:
            thread.join()
    assert found == {str(program): sha256(program)} | {str(folder / name): "" for name in files}
    assert not_evaluated == 0
