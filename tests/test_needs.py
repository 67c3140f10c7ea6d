"""The marks that say what a test needs."""

from pathlib import Path

import pytest

from tests import needs


@pytest.mark.parametrize(
    ("text", "none"),
    [
        ("pytestmark = pytest.mark.bpf\n", True),
        ('pytestmark = pytest.mark.usefixtures("catalogue_built")\n', True),
        ("pytestmark = [\n    pytest.mark.timeout(9),\n    pytest.mark.root,\n]\n", True),
        ('pytestmark = pytest.mark.usefixtures("small")\n\n\n@pytest.mark.bpf\ndef test_a() -> None: ...\n', False),
        ("@pytest.mark.bpf\ndef test_a() -> None: ...\n", False),
        ("def test_a() -> None: ...\n", False),
    ],
)
def test_a_file_is_left_out_of_the_unit_tests_by_the_mark_above_it_alone(
    text: str, none: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "PROJECT", tmp_path)
    file = tmp_path / "test_a.py"
    file.write_text(text)
    assert needs.has_no_unit_test(file) == none
