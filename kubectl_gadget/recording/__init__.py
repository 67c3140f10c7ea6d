"""Recordings: the frames of a run in a file, as they came. The format: docs/recording.md. Knows no rows."""
