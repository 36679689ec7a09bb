"""Data sets: where they lie or come from, and one loader for text and one for images."""

from tollkeeper.data.dataset import Dataset
from tollkeeper.data.download import Progress
from tollkeeper.data.folders import locate
from tollkeeper.data.images import load_images
from tollkeeper.data.text import load_text

__all__ = ["Dataset", "Progress", "load_images", "load_text", "locate"]
