"""Proof that a copy is a copy: ownership tests, watermarks and evidence."""
