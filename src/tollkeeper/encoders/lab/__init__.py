"""Encoders that need torch: published architectures, their checkpoints, model hubs."""
