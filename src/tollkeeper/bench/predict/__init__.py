"""Prediction APIs: what detectors of theft find, what they cost, and who gets past them."""
