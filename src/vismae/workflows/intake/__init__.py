"""How ingest reads: pieces of work, what becomes of one, and the processes that read."""
