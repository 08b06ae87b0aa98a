"""From an architecture to an nn.Module, freshly initialised or with trained weights.

There is one lowering: `lower` says which torch modules a network is made of. Building runs these calls, exporting
writes them down, so the trained network and the exported text cannot drift apart.
"""

import safetensors.torch
import torch
from torch import nn

from nas.errors import UserError
from nas.network.architecture import Architecture, notation
from nas.network.cost import lower
from nas.network.operations import ModuleCall


def build_module(call: ModuleCall) -> nn.Module:
    """The module that a call makes."""
    module = getattr(nn, call.name)(*call.args, **dict(call.kwargs))
    assert isinstance(module, nn.Module)
    return module


def build(architecture: Architecture) -> nn.Sequential:
    """The network, freshly initialised from torch's global random generator."""
    return nn.Sequential(*(build_module(step.call) for step in lower(architecture)))


def with_weights(architecture: Architecture, weights: bytes) -> nn.Sequential:
    """The network with the state that these safetensors bytes hold; what is no tensor is never loaded.

    Raises:
        UserError: the bytes are damaged, or of another network.
    """
    network = build(architecture)
    try:
        state = safetensors.torch.load(weights)
        network.load_state_dict(state)
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            raise ValueError("they are not finite")
    except Exception as error:  # whatever damaged bytes make the library raise
        raise UserError(
            f"the weights do not fit the network {notation(architecture)} ({error}); they are damaged, or another's: "
            "put a copy in their place, or train it again"
        ) from error
    return network
