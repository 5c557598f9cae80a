"""What is measured of a model. PyTorch alone."""
