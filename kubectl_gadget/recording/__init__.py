"""Recordings: the unmodified frames of a run in a file. The format: docs/recording.md. Knows nothing about rows."""
