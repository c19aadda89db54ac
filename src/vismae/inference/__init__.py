"""Floor 2: a model answers."""
