"""Floor 1: reading image files as they are. Knows nothing of training."""
