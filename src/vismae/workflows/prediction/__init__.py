"""The parts of ``vismae predict``: inputs, reading, answers, records, tables."""
