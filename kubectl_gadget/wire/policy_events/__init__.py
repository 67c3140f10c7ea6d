"""Events of policies: the engine's records, the events in them, and their JSON. Client and agents share this package.

It uses only the standard library, since agents write events of installed policies to their log.
"""
