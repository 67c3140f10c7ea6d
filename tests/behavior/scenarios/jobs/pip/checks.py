import json
from pathlib import Path

import pytest
import shop_prices


@pytest.mark.parametrize("number", range(20))
def test_price(tmp_path: Path, number: int) -> None:
    (tmp_path / "order.json").write_text(json.dumps({"tea": number}))
    assert json.loads((tmp_path / "order.json").read_text()) == {"tea": number}
    assert shop_prices.price("tea") == 3
