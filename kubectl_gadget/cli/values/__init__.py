"""What users type, read and checked, before anything is started."""
