"""One run: its options, the requests to agents, the streams of all nodes, the pipeline to rows, the summary."""
