"""Layouts in which public data sets are handed out, read as tables of images and labels."""
