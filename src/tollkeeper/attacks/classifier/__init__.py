"""Ways to copy a classifier through its answers.

Pools are (n, c, h, w) float32 pictures in [0, 1]; one picture is one query, and an answer that was
bought is kept. All copies are `TorchClassifier`s, trained from scratch unless the file says so.
"""
