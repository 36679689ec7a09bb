"""Training with torch: the one loop, and where randomness and devices come from."""
