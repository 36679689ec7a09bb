"""Experiments on tolls: what puzzles cost, and whom."""
