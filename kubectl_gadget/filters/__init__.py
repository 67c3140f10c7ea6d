"""Filters of rows in CEL: checked before there are rows, evaluated on columns, and partly in the kernel."""
