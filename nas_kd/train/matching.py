"""Cream's meta network: learns which path on the board should teach a subnet, and how much it should count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nas_kd.runtime.seeds import seed_for

EVERY = 20  # steps between two lessons; the authors' 200 of 150,000 would be none in a short training
LR = 0.1  # of plain gradient descent, which has no state to resume
INIT = 0.01  # standard deviation of new weights


class MetaMatcher(nn.Module):
    """A linear layer from the difference of two answers to how well one path teaches another.

    Args:
        classes: C, the number of logits.
        answers: from logits (B, C) to what is compared: the softmax, where an image is of one class.
        seed: of the weights.

    Source: Cream of the Crop (Peng et al., arXiv 2010.15821), section 3.2. Its gradient there is that of a second
        derivative; the degree multiplies the loss of one plain step, so here it is the product of two gradients, which
        is the same number.
    """

    def __init__(self, classes: int, answers: Callable[[Tensor], Tensor], seed: int = 0) -> None:
        super().__init__()
        self.answers = answers
        generator = torch.Generator().manual_seed(seed_for(seed, "cream matching"))
        self.weight = nn.Parameter(INIT * torch.randn(classes, generator=generator))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, own: Tensor, theirs: Tensor) -> Tensor:
        """Return the matching degree of each path, 0 to 1.

        Args:
            own: (B, C) logits of the subnet; without gradient here.
            theirs: (N, B, C) logits of the paths.

        Returns:
            (N,) degrees, which learn.
        """
        apart = (self.answers(own.detach()) - self.answers(theirs.detach())).mean(1)  # (N, C)
        return torch.sigmoid(apart.to(self.weight.dtype) @ self.weight + self.bias)

    def learn(self, slope: Tensor, degree: Tensor, mean: Callable[[Tensor], Tensor]) -> None:
        """Take one step of plain gradient descent.

        Args:
            slope: derivative of the held-out loss by the degree.
            degree: of the path that taught, as `forward` gave it.
            mean: averages a value over processes, which must learn alike.
        """
        gradients = torch.autograd.grad(degree, [self.weight, self.bias], slope.to(degree.dtype))
        with torch.no_grad():
            for parameter, gradient in zip((self.weight, self.bias), gradients, strict=True):
                parameter.sub_(LR * mean(gradient))


def held_out_slope(
    parameters: Sequence[nn.Parameter],
    losses: Callable[[], tuple[Tensor, Tensor]],
    held_out: Callable[[], Tensor],
    degree: float,
    rate: float,
) -> Tensor:
    """Return how a held-out loss, after one step, changes with the weight of the soft targets in that step.

    The weights come out as they went in.

    Args:
        parameters: what the step moves.
        losses: returns the label loss and that of soft targets, scalars with a graph, on the images of the step.
        held_out: returns the label loss on other images, with the weights of the moment.
        degree: weight of the soft targets in the step.
        rate: learning rate of the step.

    Returns:
        The derivative, a scalar: minus the rate times the product of the held-out loss's gradient after the step and
        the soft loss's before it.
    """
    labels, soft = losses()
    by_labels = torch.autograd.grad(labels, parameters, retain_graph=True, allow_unused=True)
    by_soft = torch.autograd.grad(soft, parameters, allow_unused=True)
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, one, other in zip(parameters, by_labels, by_soft, strict=True):
            for gradient, weight in ((one, 1.0), (other, degree)):
                if gradient is not None:
                    parameter.sub_(rate * weight * gradient)
    after = torch.autograd.grad(held_out(), parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, old in zip(parameters, kept, strict=True):
            parameter.copy_(old)
    products = [(a * s).sum() for a, s in zip(after, by_soft, strict=True) if a is not None and s is not None]
    return -rate * torch.stack(products).sum()
