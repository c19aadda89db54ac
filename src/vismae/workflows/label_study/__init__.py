"""The parts of a label-efficiency study; ``workflows/study.py`` puts them together."""
