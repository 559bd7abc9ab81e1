"""The way back: how many states are kept, and what they may take."""

from __future__ import annotations

import torch

from napari_mepdiff.reconstruction.diffusion.kept import KeptStates


def state(chains, shared):
    return {"z": torch.zeros(1000), "images": shared, "occupancy": {"states": torch.zeros(chains)}}


def test_whole_atoms_count_for_the_memory_of_kept_states():
    """Only latents were counted: with whole atoms kept states could reach gigabytes."""
    kept, images = KeptStates(budget=1_000_000), torch.zeros(10_000)
    for step in range(40):
        kept.add(step, state(50_000, images), most=200)
    # 4 kB and 200 kB each, beside 40 kB that all of them share
    assert kept.bytes <= 1_000_000
    assert kept.steps == [0, 37, 38, 39]
    assert kept.bytes == 4 * (4_000 + 200_000) + 40_000
    small = KeptStates(budget=1_000_000)
    for step in range(40):
        small.add(step, state(100, images), most=200)
    assert len(small.steps) == 40


def test_the_start_and_the_latest_step_stay_whatever_they_take():
    kept = KeptStates(budget=1)
    for step in range(5):
        kept.add(step, state(10, torch.zeros(1)), most=0)
    assert kept.steps == [0, 4]
    assert kept.before(3) == 0
    kept.forget_after(0)
    assert kept.steps == [0]
