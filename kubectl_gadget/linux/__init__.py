"""Names of Linux's numbers, as data: system calls, errors, flags, LSM hooks."""
