"""What is measured of a model and an intervention on it, whatever the method."""
