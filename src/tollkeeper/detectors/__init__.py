"""Detectors of extraction through prediction APIs; scoring needs no torch."""
