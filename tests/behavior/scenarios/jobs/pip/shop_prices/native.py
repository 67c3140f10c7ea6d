import ctypes

LIBC = ctypes.CDLL(None)
