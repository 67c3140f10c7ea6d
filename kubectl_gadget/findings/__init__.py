"""One list of findings of a run, and the reports that are made of it. Knows neither sessions nor the command line."""
