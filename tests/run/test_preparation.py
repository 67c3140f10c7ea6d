"""What the user typed is checked before anything starts, and the flag is named."""

import io
import os
from dataclasses import replace
from typing import cast

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import TotalFields
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.sink import TakingSink
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.run.preparation import prepare
from kubectl_gadget.run.run_options import GadgetRun, RunExport, RunOptions
from tests.rows.records import OPEN


def test_headings_stand_for_columns_in_every_flag_that_names_some() -> None:
    arrangement = Arrangement(sort=("-PID",), by=("POD", "Comm"))
    options = RunOptions(
        (GadgetRun(replace(OPEN, kind="top", totals=TotalFields(sums=("fd",))), {}),), arrangement=arrangement
    )
    prepared = prepare(replace(options, output=OutputOptions(columns=("ERR", "PATH"))), io.StringIO())
    assert prepared.options.output.columns == ("errno", "path")
    assert prepared.options.arrangement == Arrangement(sort=("-pid",), by=("pod", "comm"))


@pytest.mark.parametrize("flag", ["filter", "fail_on", "expect"])
def test_a_wrong_condition_names_its_flag(flag: str) -> None:
    options = RunOptions((GadgetRun(OPEN, {}),), **{flag: 'comm = "x"'})
    with pytest.raises(UsageError) as caught:
        prepare(options, io.StringIO())
    first = str(caught.value).split("\n")[0]
    assert first == f"--{flag.replace('_', '-')}: CEL writes == for equal"
    assert caught.value.remedy == """'comm == "x"'"""


class _Export:
    takes_output = False


def test_rows_that_are_exported_are_not_formatted_for_nobody() -> None:
    options = RunOptions((GadgetRun(OPEN, {}),), export=lambda gadgets: cast("RunExport", _Export()))
    with open(os.devnull, "w") as null:
        assert isinstance(prepare(options, null).sink, TakingSink)
        assert not isinstance(prepare(replace(options, export=None), null).sink, TakingSink)
        with pytest.raises(UsageError):
            prepare(replace(options, output=OutputOptions(columns=("nothing",))), null)
    assert not isinstance(prepare(options, io.StringIO()).sink, TakingSink)
