"""Ownership of classifiers."""
