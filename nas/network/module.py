"""From an architecture to module calls, and from those to an nn.Module; the costs of any built module, measured.

There is one lowering: `lower` says which torch modules a network is made of. Building runs these calls, exporting
writes them down, so the trained network and the exported text cannot drift apart.
"""

import safetensors.torch
import torch
from torch import nn

from nas.errors import UserError
from nas.network.architecture import Architecture, notation
from nas.network.operations import lower


def build(architecture: Architecture) -> nn.Sequential:
    """The network, freshly initialised from torch's global random generator."""
    return nn.Sequential(*(call.build() for call in lower(architecture)))


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
