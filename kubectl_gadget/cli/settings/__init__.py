"""Defaults of flags, from the environment and from the configuration file."""
