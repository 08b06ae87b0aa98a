"""Constraint-driven architecture search for tiny convolutional networks."""

__version__ = "0.1.0"
