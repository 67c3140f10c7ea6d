"""Tables that are not streams: totals, intervals, recordings, trees."""
