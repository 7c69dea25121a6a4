"""The variational autoencoder: configuration, parameters, ELBO with its gradient, inference, evidence."""
