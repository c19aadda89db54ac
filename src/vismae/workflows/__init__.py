"""Floor 3: one file, one command: configuration in, result on disk out."""
