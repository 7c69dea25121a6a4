"""Variational autoencoders trained by many CPU processes through a parameter server."""

__version__ = "0.1.0"
