"""Mathematics on arrays: elementary functions, noise, layers, Gaussians, likelihoods."""
