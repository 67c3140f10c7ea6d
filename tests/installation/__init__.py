"""The package as a stranger builds and installs it, on ground that has nothing of ours."""
