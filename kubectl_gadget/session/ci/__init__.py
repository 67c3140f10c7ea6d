"""Traces while a command of a CI job runs, or between `ci start` and `ci stop`, and judges what was seen."""
