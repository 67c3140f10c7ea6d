"""kubectl gadget: see what containers really do, in any cluster, with nothing installed beforehand."""

__version__ = "0.1.0"
