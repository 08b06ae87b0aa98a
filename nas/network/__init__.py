"""What a network is: layers as values, its costs without torch, its limits, and the module built from it."""
