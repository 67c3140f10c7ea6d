"""A run's recording and its replay: what goes into the file beside frames, and how a run is made of it again."""
