"""Encoders: the protocol and its adapters (built-in, ONNX, callable, upstream)."""
