"""What crystals look like: the diffusion prior, its data, training and weights."""
