"""Challenges: what an account has to compute before it is answered."""
