"""Policies on recorded rows: which rows stand for calls of which hooks, and what the rows cannot decide."""
