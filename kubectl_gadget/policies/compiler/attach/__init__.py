"""Where the programs of a hook can be attached, and what helps on nodes where none of these ways works."""
