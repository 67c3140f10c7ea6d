"""Filters rows with CEL: checked before there are rows, evaluated by column, and in part by the kernel."""
