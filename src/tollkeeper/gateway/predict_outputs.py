"""From the outputs that a plan names to the responses that change answers."""

from __future__ import annotations

from collections.abc import Mapping

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.predict_plan import Output
from tollkeeper.graphs import Graph
from tollkeeper.responses.base import Perturbation
from tollkeeper.responses.mad import MaximizingAngularDeviation
from tollkeeper.responses.misinformation import AdaptiveMisinformation
from tollkeeper.responses.outputs import KeyedNoise, ReverseSigmoid, Rounded, TopK

SURROGATE = "surrogate"
MISINFORMER = "misinformer"


def response_of(output: Output, graphs: Mapping[str, Graph]) -> Perturbation:
    """Return what an output of a plan does.

    Raises:
        ConfigurationError: it needs a network that the detector file does not hold.
    """
    if output.top_k is not None:
        return TopK(output.top_k)
    if output.decimals is not None:
        return Rounded(output.decimals)
    if output.noise is not None:
        return KeyedNoise(output.noise)
    if output.reverse_sigmoid is not None:
        return ReverseSigmoid(output.reverse_sigmoid.beta, output.reverse_sigmoid.gamma)
    if output.mad is not None:
        return MaximizingAngularDeviation(
            _network(graphs, SURROGATE, "mad"),
            distance=output.mad.distance,
            keep_label=output.mad.keep_label,
        )
    setting = output.adaptive_misinformation
    assert setting is not None  # one of them is written
    network = _network(graphs, MISINFORMER, "adaptive_misinformation")
    return AdaptiveMisinformation(network, setting.threshold, setting.steepness)


def _network(graphs: Mapping[str, Graph], name: str, output: str) -> Graph:
    found = graphs.get(name)
    if found is None:
        raise ConfigurationError(
            f"the output {output} needs a detector file that holds the network {name!r}; pass one "
            "with `detector`, or take the output out of the plan"
        )
    return found
