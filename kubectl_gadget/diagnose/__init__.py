"""`diagnose`: what is wrong with pods, in words. Rules are data (rules/*.yaml)."""
