"""What is refused before a recording is opened."""

import pytest

from kubectl_gadget.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["replay", "a.kgr", "--since"], "error: flag --since needs a value\n"),
        (["replay", "a.kgr", "trace", "open", "--speed"], "error: flag --speed needs a value\n"),
        (
            ["recording", "query", ".", "select 1", "--memory", "1Ki"],
            "error: --memory must be between",
        ),
        (
            ["recording", "query", ".", "select 1", "--memory", "99999999999Gi"],
            "error: --memory must be between",
        ),
    ],
)
def test_a_flag_without_a_value_or_beyond_its_limits_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main.run(words) == 2
    assert capsys.readouterr().err.startswith(message)
