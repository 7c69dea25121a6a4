"""Variational autoencoders trained by many CPU processes through a parameter server."""

# `typing` takes longer to import than this whole module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ps_vae.estimator.vae import VAE

__all__ = ["VAE", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The estimator, when it is asked for: it takes NumPy and Numba to import, which `ps-vae --help` does without."""
    if name != "VAE":
        raise AttributeError(f"module 'ps_vae' has no attribute {name!r}")
    from ps_vae.estimator.vae import VAE

    return VAE
