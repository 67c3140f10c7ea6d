"""Lists of functions that a node makes."""

import os
from pathlib import Path

import pytest

from kubectl_gadget.agent.kernel.kernel_hooks import hookable_functions
from kubectl_gadget.errors import AgentError


@pytest.mark.usefixtures("catalogue_built")
def test_the_system_calls_have_their_own_numbers() -> None:
    found = hookable_functions("")
    assert found[0 if os.uname().machine == "x86_64" else 63] == "sys_read"


def test_a_name_that_several_functions_share_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["ksys_write", "ksys_read", "ksys_twice", "other", "ksys_twice"]
    monkeypatch.setattr("kubectl_gadget.agent.kernel.kernel_hooks.traceable_names", lambda: names)
    assert hookable_functions("^ksys_") == {0: "ksys_read", 1: "ksys_write"}


@pytest.mark.parametrize(
    ("names", "pattern", "why"),
    [
        (None, "^ksys_", r"is not mounted \(mount -t tracefs"),
        (["other"], "^ksys_", "no function that can be hooked matches"),
        ([f"f{number}" for number in range(20_001)], "f", "20001 functions match"),
        ([], "(", "not a valid regular expression"),
    ],
)
def test_why_there_is_no_list_is_reported(
    names: list[str] | None, pattern: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.kernel.kernel_hooks.traceable_names", lambda: names)
    monkeypatch.setattr("kubectl_gadget.agent.host.this_node.TRACEFS_FOLDERS", ())
    with pytest.raises(AgentError, match=why):
        hookable_functions(pattern)


def test_a_kernel_that_lists_no_functions_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.host.this_node.TRACEFS_FOLDERS", (str(tmp_path),))
    (tmp_path / "events").mkdir()
    with pytest.raises(
        AgentError, match=r"this kernel lists no functions that can be hooked \(CONFIG_DYNAMIC_FTRACE\)"
    ):
        hookable_functions("^ksys_")
