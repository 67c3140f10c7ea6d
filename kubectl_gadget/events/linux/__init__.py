"""Linux's numbers as Linux names them."""
