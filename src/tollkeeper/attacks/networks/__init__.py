"""Architectures of surrogates: convolutional nets for images, n-gram nets for text."""
