"""What needs torch: planting marks. Checking them does not."""
