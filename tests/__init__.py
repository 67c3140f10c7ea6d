import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""A thread for each other processor begins with a loop that does nothing, in each process that imports numpy."""
