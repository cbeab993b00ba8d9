"""The variational autoencoder: networks, model, loss, and training that can be stopped and resumed."""
