"""What the engine of policies tells: its records, the events in them, and their JSON. Client and agents read the same.

Standard library only, since agents write events of installed policies to their log.
"""
