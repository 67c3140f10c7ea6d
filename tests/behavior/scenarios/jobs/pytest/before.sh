set -e
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pytest pytest-xdist
