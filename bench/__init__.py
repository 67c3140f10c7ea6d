"""Measurements, each a command of its own: `sudo .venv/bin/python -m bench.open`, and `make bench` for all of them.

Each prints tables and with --json writes every single measurement. The trap: machines drift, so what is compared is
run in turns, and ratios within one run say more than times.
"""
