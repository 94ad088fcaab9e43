"""Training: fits a variational autoencoder to a table and exports it to ONNX. The only package that loads torch."""
