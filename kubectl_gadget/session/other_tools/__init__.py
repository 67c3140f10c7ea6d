"""Tools of bcc and programs of bpftrace on several nodes at once."""
