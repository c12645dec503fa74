"""Images: variational autoencoders and diffusion models."""
