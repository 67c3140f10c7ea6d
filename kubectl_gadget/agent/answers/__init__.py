"""What a gadget delivers besides a stream of events: snapshots, sums, flight recordings, contents of files."""
