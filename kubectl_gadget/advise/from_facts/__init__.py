"""Turns the facts of a baseline or a run into policies and profiles that allow what was seen."""
