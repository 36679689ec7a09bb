"""How inputs are asked and the answers cleaned before they are learned from."""
