"""Turns observations of containers into objects to apply: policies, profiles, patches.."""
