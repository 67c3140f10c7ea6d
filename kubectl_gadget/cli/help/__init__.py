"""What is printed for people: help pages, tables, and what other tools call our commands and flags."""
