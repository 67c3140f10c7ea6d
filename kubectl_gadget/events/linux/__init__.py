"""Names for Linux's numeric constants."""
