"""A catalogue of two sample gadgets, and a session that keeps what it was asked for instead of running."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from kubectl_gadget import gadgets
from kubectl_gadget.cli import main
from kubectl_gadget.gadgets import GadgetSummary, load
from kubectl_gadget.run.run_options import RunOptions
from tests.cli.sample_gadgets import GADGETS, INDEX


@pytest.fixture(autouse=True)
def sample_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue holds the sample gadgets only; the terminal has 80 columns, and no cluster is known."""
    monkeypatch.setattr(gadgets, "load_index", lambda: INDEX)
    monkeypatch.setattr(gadgets, "load_gadget", GADGETS.__getitem__)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in [name for name in os.environ if name.startswith("KUBECTL_GADGET_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def built_in(catalogue_built: Path, sample_catalogue: None, monkeypatch: pytest.MonkeyPatch) -> list[GadgetSummary]:
    """The real catalogue instead of the samples."""
    monkeypatch.setattr(gadgets, "load_index", load.load_index)
    monkeypatch.setattr(gadgets, "load_gadget", load.load_gadget)
    return load.load_index()


class Runs(list[RunOptions]):
    """What the session was asked to run; `outcome` is what it does then."""

    outcome: int | BaseException = 0

    def run(self, options: RunOptions, stdout: object, stderr: object, page: object = None) -> int:
        self.append(options)
        if options.beforehand is not None:
            options.beforehand()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Takes the place of the session."""
    asked = Runs()
    monkeypatch.setattr("kubectl_gadget.cli.run.run", asked.run)
    return asked


@pytest.fixture
def asked(runs: Runs) -> Callable[[str], RunOptions]:
    """Runs a command line that is right, and gives back what the session was asked for."""

    def run(line: str) -> RunOptions:
        assert main.run(shlex.split(line)) == 0
        return runs[-1]

    return run
