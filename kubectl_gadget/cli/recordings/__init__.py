"""Commands that record a run, show a recording again, and make something else of it."""
