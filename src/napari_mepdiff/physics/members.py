"""The coherent members of which Gaussian partial coherence is the sum.

exp(−½(s − s')²) = Σ_n g_n(s) g_n(s') with g_n(s) = exp(−s²/2) sⁿ/√n!, for each of three Gaussians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TAIL = 1e-5  # share of the power that may be missing from the members


def coherent_members(s: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """Powers (J, 3) and functions (J, P) of all members but those that hold next to nothing.

    The total order of a pixel is Poisson with mean s²: the members up to the total order that
    leaves out less than ``_TAIL`` of the power, of these the ones that matter.
    """
    mean = s.square().sum(0)
    share = power / power.sum()
    left, term, last = 1.0, torch.exp(-mean) * share, 0
    left -= float(term.sum())
    while left > _TAIL and last < 60:
        last += 1
        term = term * mean / last
        left -= float(term.sum())
    single: list[Tensor] = []
    for row in s:
        terms = [torch.exp(-0.5 * row.square())]
        if bool((row != 0).any()):
            for n in range(1, last + 1):
                terms.append(terms[-1] * row / math.sqrt(n))
        single.append(torch.stack(terms))
    # |g| ≤ 1: what is next to nothing as a product of two stays so as a product of three
    least = 1e-2 * _TAIL
    pairs = torch.cartesian_prod(torch.arange(len(single[0])), torch.arange(len(single[1])))
    pairs = pairs[pairs.sum(1) <= last]
    product = single[0][pairs[:, 0]] * single[1][pairs[:, 1]]
    matter = product.square() @ share > least
    pairs, product = pairs[matter], product[matter]
    which = torch.cartesian_prod(torch.arange(len(pairs)), torch.arange(len(single[2])))
    orders = torch.cat([pairs[which[:, 0]], which[:, 1:]], 1)
    allowed = orders.sum(1) <= last
    which, orders = which[allowed], orders[allowed]
    # their powers first: most of the products are never needed
    power = (product.square() * share) @ single[2].square().T
    matter = power[which[:, 0], which[:, 1]] > least
    which, orders = which[matter], orders[matter]
    return orders.to(torch.float64), product[which[:, 0]] * single[2][which[:, 1]]
