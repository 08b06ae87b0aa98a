"""One training, epoch by epoch, and the score of its weights."""
