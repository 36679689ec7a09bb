"""Trained networks become ONNX graphs that serve without torch."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

OPSET = 17
"""The first with layer normalization as one node."""


def export_graph(
    network: nn.Module, shape: tuple[int, ...], *, outputs: tuple[str, ...] = ("output",)
) -> bytes:
    """Return a network as an ONNX graph of any number of rows, its weights inside.

    Args:
        network: from (n, *shape) float32 to one tensor (n, ...) for each output; it is put into
            evaluation mode, and its weights stay where they are.
        shape: of one row.
        outputs: names, in the order in which the network returns them.

    Returns:
        A graph of one input, `rows`.
    """
    network.eval()
    where = next(network.parameters()).device
    # More than one row, so that nothing takes the number of rows for a constant 1.
    example = torch.zeros(2, *shape, device=where)
    written = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter that replaces this one needs a package that the lab extra does not hold.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            written,
            dynamo=False,
            opset_version=OPSET,
            input_names=["rows"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in ("rows", *outputs)},
        )
    return written.getvalue()
