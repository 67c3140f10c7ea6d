"""Tables that are not streams: sums, intervals, recordings, trees."""
