"""Sends the rows that a run shows to where others keep their data: JSON lines, syslog, OTLP, Prometheus."""
