"""The sinks: table, json, yaml, csv, … from rows to text."""
