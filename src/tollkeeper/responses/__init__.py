"""Responses that change the probabilities of an answer."""
