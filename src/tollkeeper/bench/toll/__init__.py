"""Experiments on what an answer is made to cost."""
