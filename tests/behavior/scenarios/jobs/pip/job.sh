set -e
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check build pytest
venv/bin/python -m build --sdist -o dist . >log 2>&1
venv/bin/pip install -q --disable-pip-version-check dist/shop_prices-1.0.tar.gz
venv/bin/pytest -q checks.py
