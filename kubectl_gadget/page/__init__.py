"""The page of a run: a view model, and one HTML file that draws it."""
