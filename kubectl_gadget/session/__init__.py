"""The client's side of one run: the streams of all nodes, the pipeline from frames to rows, and the summary."""
