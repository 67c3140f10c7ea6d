"""`kubectl gadget behavior …` with baselines: what is printed, written and refused, and with which exit code."""

import json
from pathlib import Path

import pytest

from kubectl_gadget.behavior.baseline import baseline_text, read_baseline
from kubectl_gadget.behavior.facts import USUAL_KINDS, Behavior, FactKind, Unit
from kubectl_gadget.cli.main import run
from kubectl_gadget.kube.inventory import Workload
from tests.behavior.made import behavior, fact

CART = fact("program", "/bin/cart", "(runtime)")
CURL = fact("program", "/usr/bin/curl", "/bin/cart")
SEEN = fact("open", "/bin/cart", "read /etc/cart.conf")
LOSSY = {"complete_runs": 0, "incomplete": ("events were lost (ring buffer full)",)}


def saved(folder: Path, name: str, found: Behavior) -> str:
    path = folder / name
    path.write_text(baseline_text(found))
    return str(path)


@pytest.fixture
def old(tmp_path: Path) -> str:
    return saved(tmp_path, "old.yaml", behavior(CART, SEEN))


def test_the_same_has_exit_code_0(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["behavior", "diff", old, old]) == 0
    assert capsys.readouterr().out == "no changes\n"


def test_a_change_has_exit_code_4(old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = saved(tmp_path, "new.yaml", behavior(CART, SEEN, CURL))

    assert run(["behavior", "diff", old, new]) == 4
    assert "new program: /bin/cart runs /usr/bin/curl" in capsys.readouterr().out


def test_what_was_not_seen_has_exit_code_5(old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = saved(tmp_path, "new.yaml", behavior(CART, **LOSSY))

    assert run(["behavior", "diff", old, new]) == 5
    assert "inconclusive" in capsys.readouterr().out


@pytest.mark.parametrize(("format", "begins"), [("json", "{"), ("markdown", "**Behavior"), ("html", "<!doctype html>")])
def test_diff_has_formats(
    old: str, tmp_path: Path, format: str, begins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new = saved(tmp_path, "new.yaml", behavior(CART, CURL))

    assert run(["behavior", "diff", old, new, "-o", format]) == 4
    assert capsys.readouterr().out.startswith(begins)


def test_show_says_facts_in_words_and_as_json(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["behavior", "show", old]) == 0
    assert "open        /bin/cart reads /etc/cart.conf" in capsys.readouterr().out
    assert run(["behavior", "show", old, "-o", "json", "--kind", "program"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["text"] == "(runtime) runs /bin/cart"


def test_show_prints_a_baseline_that_can_be_read(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["behavior", "show", old, "-o", "yaml"]) == 0
    assert capsys.readouterr().out == Path(old).read_text()


def test_merge_writes_one_baseline(old: str, tmp_path: Path) -> None:
    other, together = saved(tmp_path, "other.yaml", behavior(CURL)), tmp_path / "all.yaml"

    assert run(["behavior", "merge", old, other, "--to", str(together)]) == 0
    assert set(read_baseline(together).behavior.facts) == {CART, SEEN, CURL}


def test_an_existing_baseline_is_not_replaced(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(old).read_text()

    assert run(["behavior", "save", old, "--local", "--timeout", "1s"]) == 2
    assert f"{old} exists" in capsys.readouterr().err
    assert Path(old).read_text() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["diff", "OLD"], "two baselines or recordings are needed"),
        (["diff", "OLD", "OLD", "--timeout", "1s"], "--timeout has no effect here"),
        (["diff", "OLD", "OLD", "-l", "a=b"], "recordings have no pod labels or owners"),
        (["diff", "--live", "a=b"], "two label selectors are needed"),
        (["diff", "--live", "a=b", "a=c", "--local"], "--live needs a cluster"),
        (["show"], "name one baseline or recording"),
        (["show", "OLD", "--kind", "programs"], "'programs' is not a kind of facts; did you mean program?"),
        (["show", "none.yaml"], "none.yaml: No such file or directory"),
        (["check"], "no baseline was given"),
        (["update"], "no file for the baseline was given"),
        (["merge"], "no baseline was given"),
        (["save", "new.yaml", "--from", "OLD"], "not a recording"),
    ],
)
def test_a_mistake_is_explained(
    words: list[str], message: str, old: str, built_in: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["behavior", *(old if word == "OLD" else word for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_rules_are_shown_and_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["behavior", "rules"]) == 0
    own = tmp_path / "rules.yaml"
    own.write_text(capsys.readouterr().out)
    assert run(["behavior", "rules", "--rules", str(own), "--try", "/proc/4711/status"]) == 0
    assert capsys.readouterr().out == "/proc/4711/status becomes /proc/<pid>/status\n"


def test_rules_for_reading_are_counted_and_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "rules.yaml"
    own.write_text("reads: [{name: x, match: /x, to: /y}]\n")

    assert run(["behavior", "rules", "--rules", str(own)]) == 0
    assert ": 1 rule, before" in capsys.readouterr().out
    assert run(["behavior", "rules", "--rules", str(own), "--try", "/x/__pycache__/a.cpython-313.pyc"]) == 0
    assert capsys.readouterr().out.endswith(
        " becomes /x/__pycache__/a.cpython.pyc, and /y/a.py where it is only read\n"
    )


@pytest.mark.parametrize("advisor", ["capabilities", "networkpolicy", "apparmor", "tracingpolicy"])
def test_no_name_in_a_baseline_leads_out_of_the_directory(advisor: str, tmp_path: Path) -> None:
    hostile = Unit(Workload(f"{tmp_path}/out/x", "..", "../../y"), "../z\n  /** rwix,")
    old = saved(tmp_path, "old.yaml", behavior(fact("program", "/bin/cart", "(runtime)", hostile), units=[hostile]))
    (tmp_path / "out").mkdir()

    assert run(["advise", advisor, "--from", old, "--directory", str(tmp_path / "in")]) == 0

    (file,) = (tmp_path / "in").iterdir()
    assert not [*(tmp_path / "out").iterdir()]
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert not any(line.strip().startswith("/**") for line in lines)


@pytest.mark.parametrize("command", ["diff", "show"])
def test_no_text_of_a_container_is_a_command_to_a_runner(
    command: str, old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = [fact("open", "/bin/cart", f"read /etc/{text}") for text in ("##[error]x", "##vso[task.x]y")]
    new = saved(tmp_path, "new.yaml", behavior(CART, *hostile, **{**LOSSY, "incomplete": ("::error::x",)}))

    run(["behavior", command, *([old] if command == "diff" else []), new])

    out = capsys.readouterr().out
    assert "[error]x" in out
    assert "##" not in out
    assert not [line for line in out.splitlines() if line.lstrip().startswith("::")]


def test_advice_comes_from_baselines_as_far_as_facts_allow(
    old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["advise", "capabilities", "--from", old]) == 0
    assert "drop:" in capsys.readouterr().out
    assert run(["advise", "seccomp", "--from", old]) == 1
    assert "behavior save or update --syscalls" in capsys.readouterr().err
    assert run(["advise", "filesystem", "--from", old]) == 2
    assert "a baseline does not have what advise filesystem needs" in capsys.readouterr().err
    kinds = USUAL_KINDS | {FactKind.SYSCALL}
    calls = saved(tmp_path, "calls.yaml", behavior(fact("syscall", "/bin/cart", "ptrace"), kinds=kinds))
    assert run(["advise", "seccomp", "--from", calls]) == 0
    assert "ptrace" in json.loads(capsys.readouterr().out)["syscalls"][0]["names"]
    assert run(["advise", "apparmor", "--from", old]) == 0
    assert '"/bin/cart{,/}" mrix,' in capsys.readouterr().out
    assert run(["advise", "apparmor", "--from", old, "--format", "patch", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "Deployment"
    assert run(["advise", "apparmor", "--from", old, "--directory", str(tmp_path / "profiles")]) == 0
    assert (tmp_path / "profiles" / "shop_deployment_cart_main").read_text().endswith("}\n")
    assert run(["advise", "tracingpolicy", "--from", old, "--deny"]) == 0
    policy = capsys.readouterr().out
    (tmp_path / "policy.yaml").write_text(policy)
    assert "Override" in policy
    assert run(["policy", "check", "-f", str(tmp_path / "policy.yaml")]) == 0


@pytest.mark.parametrize("words", [["save", "new.yaml"], ["check"]])
def test_a_recording_is_no_pod_to_wait_for(
    words: list[str], old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / word) if word.endswith(".yaml") else word for word in words]

    assert run(["behavior", *words, *([old] if words == ["check"] else []), "run.kgr"]) == 2

    assert capsys.readouterr().err == "error: run.kgr is a recording and not a pod\ntry: --from run.kgr\n"


def test_a_recording_after_another_command_is_shown_by_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["record", "run.kgr", "-o", "new.kgr"]) == 2
    assert "kubectl gadget replay run.kgr shows it" in capsys.readouterr().err
