"""Proof of work: what a challenge is, and how one is solved and checked."""
