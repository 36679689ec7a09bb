"""Experiments on ownership: false accusations, power, and what obfuscation costs whom."""
