"""Turns recordings into Parquet, CSV and JSON tables, traces, answers to SQL, and copies without secrets."""
