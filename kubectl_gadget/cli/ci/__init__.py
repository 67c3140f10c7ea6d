"""Commands for CI jobs: run, step, start, stop."""
