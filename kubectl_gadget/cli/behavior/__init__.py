"""`kubectl gadget behavior`: baselines of what workloads do, and what is new in them."""
