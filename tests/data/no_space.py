"""Defines no SPACE."""

space = "in lower case"
