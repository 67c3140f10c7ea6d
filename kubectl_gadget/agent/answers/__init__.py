"""What a gadget answers besides a stream of events: what is there now, sums, flight recordings, files' contents."""
