"""The one formula and the forward passes: residuals, trees, features, scoring, generation."""
