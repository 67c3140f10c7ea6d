"""What the fields of a batch mean: columns of values, for filters and for output."""
