"""`ps_vae.VAE`, a scikit-learn estimator."""
