"""Classifiers: encoders whose rows are probabilities of classes."""
