"""Runs: joins the model and the parameter server into programs."""
