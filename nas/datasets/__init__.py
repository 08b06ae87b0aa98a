"""Images: read, split, held as whole tensors, changed at random."""
