"""Turns a node's bytes into columns: schema, decoding, identity, filters, merge by time."""
