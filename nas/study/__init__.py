"""What a study keeps: where it lives, its settings, its records, and its history, read once."""
