"""The process that keeps installed policies in force, and their events and state for sessions in the same pod."""
