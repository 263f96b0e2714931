"""Unlearning methods that change weights, for comparison."""
