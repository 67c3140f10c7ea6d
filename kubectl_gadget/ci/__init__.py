"""CI runs: steps, assertions, the verdict, the findings and their reports."""
