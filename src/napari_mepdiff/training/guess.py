"""The network's first guess in training, and what simulated data say of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..prior.network import ANSWER
from ..prior.process import diffuse, x_from_v
from .batch import Batch, generators
from .microscopes import ask


@torch.no_grad()
def first_guess(network: nn.Module, batch: Batch, no_answer: float, micro: int) -> Tensor:
    """x-predictions (n, D, H, W), without data, of all but a share of the batch.

    Which those are is by chance, since volumes and λ come in random order.

    Parameters
    ----------
    network : Module
    batch : Batch
    no_answer : float
        Share of which no data are asked.
    micro : int
        Volumes at a time.
    """
    count = round((1 - no_answer) * len(batch.x))
    out = [batch.x[:0]]
    for low in range(0, count, micro):
        part = slice(low, min(low + micro, count))
        log_snr = batch.log_snr[part]
        z = diffuse(batch.x[part], batch.noise[part], log_snr)
        elements = None if batch.elements is None else batch.elements[part]
        v = network(z, log_snr, batch.condition[part], batch.flags[part], elements)
        out.append(x_from_v(z, v.float(), log_snr))
    return torch.cat(out)


def with_answer(batch: Batch, guess: Tensor, seed: int, device: str) -> Batch:
    """The batch with what data of its volumes say of guesses of the first ones; the others have
    none."""
    answer = torch.zeros(len(batch.x), ANSWER, *batch.x.shape[1:], device=batch.x.device)
    count = len(guess)
    if count:
        rng = generators(seed, device)[1]
        answer[:count] = ask(guess, batch.x[:count], seed, rng, device)
    return batch._replace(answer=answer)
