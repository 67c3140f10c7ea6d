"""From a node's bytes to columns: schema, decoding, identity, filters, merge by time."""
