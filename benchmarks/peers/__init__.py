"""What a user could train the same model with instead, one file each.

Each is a small program, written as its own documentation recommends (the page is named in its docstring), that reads a
job file, trains, and prints one JSON object: `examples_per_second` and `loss`. They know nothing of ps_vae.
"""
