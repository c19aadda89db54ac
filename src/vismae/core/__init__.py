"""Floor 0: the words everybody uses. Imports nothing else of vismae."""
