"""The parameter server: vectors, slices, versions and work; it knows nothing of autoencoders."""
