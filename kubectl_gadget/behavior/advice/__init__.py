"""Suggestions from the facts of a baseline or of a run: policies and profiles that allow what they say."""
