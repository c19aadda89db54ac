"""Floor 1: from stored slices to batches."""
