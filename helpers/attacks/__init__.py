"""Attempts to get the knowledge back, one file an attack."""
