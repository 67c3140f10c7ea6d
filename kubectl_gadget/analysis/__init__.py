"""What is made of recordings: tables of Parquet, CSV and JSON, traces, answers to SQL, and copies without secrets."""
