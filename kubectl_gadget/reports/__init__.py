"""Findings of a run, whoever made them, and the reports about them."""
