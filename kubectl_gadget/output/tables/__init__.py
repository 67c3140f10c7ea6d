"""Tables as text: streams, intervals, histograms, and column widths."""
