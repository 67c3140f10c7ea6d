"""What the user typed is checked before anything starts, and the flag is named."""

import io

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.session.options import GadgetRun, RunOptions
from kubectl_gadget.session.preparation import prepare
from tests.events.records import OPEN


@pytest.mark.parametrize("flag", ["filter", "fail_on", "expect"])
def test_a_wrong_condition_names_its_flag(flag: str) -> None:
    options = RunOptions((GadgetRun(OPEN, {}),), **{flag: 'comm = "x"'})
    with pytest.raises(UsageError) as caught:
        prepare(options, io.StringIO())
    first = str(caught.value).split("\n")[0]
    assert first == f"--{flag.replace('_', '-')}: CEL writes == for equal"
    assert caught.value.remedy == """'comm == "x"'"""
