"""Benchmarks, each a separate command: `sudo .venv/bin/python -m bench.open`; `make bench` runs all of them.

Each prints tables and with --json writes every single measurement. A machine's speed drifts, so variants are run
alternately, and ratios within one run are more reliable than times.
"""
