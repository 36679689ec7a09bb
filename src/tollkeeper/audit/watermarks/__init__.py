"""Marks that a copy inherits, and how they are checked without torch."""
