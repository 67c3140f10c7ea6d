"""The machine that the agent runs on: names and clocks, /proc, cgroups, mounts, files as containers see them."""
