"""Reads and checks what users type, before anything is started."""
