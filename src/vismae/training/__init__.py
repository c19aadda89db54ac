"""Floor 2: a model learns."""
