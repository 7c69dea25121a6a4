"""The experiments of chaos.py, one a module: what is done to a run, what is counted, and what does not hold."""
