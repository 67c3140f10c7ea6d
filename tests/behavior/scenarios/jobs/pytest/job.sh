set -e
venv/bin/pytest -q -p xdist -n 2 --junitxml=result.xml checks.py >log
venv/bin/pytest -q checks.py >log
