"""Tables as text: of streams, of intervals, histograms, and the widths of all of them."""
