"""Floor 1: scores, statistics, pictures and the report."""
