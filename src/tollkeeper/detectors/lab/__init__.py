"""Fitting detectors with torch, and writing them as graphs that score without it."""
