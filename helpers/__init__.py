"""Shared code of the notebooks: unlearning with sparse autoencoders, one intervention, one scorer, one runner."""
