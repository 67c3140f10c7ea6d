"""Recording a run and replaying it: what the file holds beside frames, and how a run is rebuilt from it."""
