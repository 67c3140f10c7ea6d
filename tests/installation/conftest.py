"""Roots of Debian in which the project is installed."""

import pytest

from tests.installation.clean import SUITES, DebianRoot, distributions


@pytest.fixture(scope="session", params=SUITES)
def installed(request: pytest.FixtureRequest) -> DebianRoot:
    """A root with both distributions."""
    root = DebianRoot(request.param)
    root.make(distributions())
    return root
