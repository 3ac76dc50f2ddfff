"""Muon: an optimiser that turns each weight matrix by the same amount in all its directions.

    Muon(vae, muon_rate=6e-3, learning_rate=1e-3)

A gradient pushes a matrix hard in few directions and hardly in the others. Muon keeps the directions U, Vᵀ of its
momentum UΣVᵀ and sets all Σ to 1. Source: Jordan et al. 2024, Muon, for hidden layers in neural networks;
the common size of the steps is that of Liu et al. 2025, Muon is scalable for LLM training.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

MOMENTUM = 0.9
STEP_SIZE = 0.2  # root mean square of an update before the rate: about that of Adam's
QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at 0, then near 1
NEWTON_SCHULZ_STEPS = 3  # brings a singular value of 0.02 or more to between 0.68 and 1.21; five learn no faster


def orthogonalize(matrix: Tensor, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """UVᵀ for `matrix` = UΣVᵀ, nearly: the same shape (m, n), most singular values between 0.68 and 1.21.

    A Newton–Schulz iteration: an odd polynomial of a matrix, X → aX + b(XXᵀ)X + c(XXᵀ)²X, works on the singular values
    alone. Under `torch.autocast` its products are in bfloat16, which is enough.
    """
    a, b, c = QUINTIC
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-12)  # no singular value above 1
    square = x @ x.mT  # the smaller of the two squares
    product = identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    # The factors of all iterations are polynomials of XXᵀ: they commute, and only their product meets the wide X.
    for _ in range(steps):
        factor = a * identity + b * square + c * square @ square
        product = factor @ product
        square = factor @ square @ factor
    x = (product @ x).to(matrix.dtype)
    return x.mT if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Muon at `muon_rate` for the weights of hidden layers; Adam at `learning_rate` for all else.

    All else: the layer that sees the picture, norms and biases. A convolution's weight (out, in, k, k) is a matrix
    (out, in·k·k); a transposed one's has its first two dimensions exchanged. Two parameter groups, in this order.
    `torch.optim.Muon` takes only weights of two dimensions.
    """

    def __init__(self, network: nn.Module, muon_rate: float, learning_rate: float):
        hidden = list(_weight_matrices(network))[1:]
        matrices = {weight for weight, _ in hidden}
        rest = [parameter for parameter in network.parameters() if parameter not in matrices]
        self.transposed = {weight for weight, transposed in hidden if transposed}
        groups = [
            {"params": [weight for weight, _ in hidden], "lr": muon_rate},
            {"params": rest, "lr": learning_rate},
        ]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """Change all parameters that have a gradient."""
        hidden, rest = self.param_groups
        for weight in hidden["params"]:
            if weight.grad is not None:
                weight.add_(self._direction(weight), alpha=-hidden["lr"])
        for parameter in rest["params"]:
            if parameter.grad is not None:
                parameter.add_(self._adam_direction(parameter), alpha=-rest["lr"])

    def _direction(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].mul_(MOMENTUM).add_(weight.grad)
        ahead = weight.grad + MOMENTUM * momentum  # Nesterov's
        ahead = ahead.transpose(0, 1) if weight in self.transposed else ahead
        matrix = ahead.flatten(1)
        scale = STEP_SIZE * max(matrix.shape) ** 0.5  # UVᵀ has a root mean square of 1 / √max(m, n)
        direction = (scale * orthogonalize(matrix)).view(ahead.shape)
        return direction.transpose(0, 1) if weight in self.transposed else direction

    def _adam_direction(self, parameter: Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        mean = state["exp_avg"].lerp_(parameter.grad, 1 - betas[0])
        square = state["exp_avg_sq"].lerp_(parameter.grad.square(), 1 - betas[1])
        corrections = [1 - beta ** int(state["step"]) for beta in betas]
        return mean / corrections[0] / ((square / corrections[1]).sqrt() + 1e-8)


def _weight_matrices(network: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """The weights of linear layers and convolutions, in order, and whether in and out are exchanged."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            yield module.weight, isinstance(module, nn.ConvTranspose2d)
