"""What the records allow to be said: statistics, finalists, ablations."""
