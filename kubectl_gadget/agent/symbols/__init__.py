"""Names of functions for addresses, addresses of functions for names, and uprobes on them."""
