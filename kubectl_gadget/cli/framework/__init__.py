"""Commands and groups made by typer from typed functions, with kubectl's argument syntax and lazy sub-commands."""
