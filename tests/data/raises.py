"""Raises while it is loaded."""

SPACE = 1 // 0
