"""Gradients and weights in fewer bytes: one file a codec, and a table of them."""
