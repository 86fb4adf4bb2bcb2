"""Storage: immutable named objects. Knows nothing of what is in them."""
