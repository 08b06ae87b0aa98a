"""Ends the program while it is loaded."""

raise SystemExit("bye")
