"""What the commands do, as functions that return values; `import nas` offers the best of them."""
