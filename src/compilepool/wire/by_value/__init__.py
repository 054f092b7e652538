"""Functions that are sent as code, because the receiver cannot import them."""
