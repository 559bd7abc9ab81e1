"""Our optimisers do PyTorch's arithmetic, and leave PyTorch's compiler alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from napari_mepdiff.reconstruction import optimisers

RUNS = """
import sys
from tests.reconstruction.small import crystal_problem
from napari_mepdiff.reconstruction.registry import SOLVERS, solve
problem, _ = crystal_problem()
for name, fields in (
    ("adam", {"iterations": 1}),
    ("lbfgs", {"iterations": 1}),
    ("refine", {"iterations": 1}),
    ("atomic", {"iterations": 1, "elements": ("Sr", "Ti")}),
):
    assert list(solve(problem, SOLVERS[name].default(**fields)))
print([m for m in ("torch._dynamo", "triton") if m in sys.modules])
import torch
print(torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(2)).tolist())
"""


def test_no_solver_loads_the_compiler_and_others_can_still_use_it():
    """A run in napari took seconds for it, and on Linux could end the process beside Mesa's
    drivers; declaring Triton absent instead took ``torch.compile`` from every other plugin."""
    out = subprocess.run([sys.executable, "-c", RUNS], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["[]", "[1.0, 1.0]"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {"lr": 0.1}),
        ("LBFGS", {"lr": 0.5, "line_search_fn": "strong_wolfe"}),
        ("LBFGS", {"lr": 0.1}),
    ],
)
def test_the_same_steps_as_torch_s_own_and_the_same_state(name, options):
    def path(kind):
        x = torch.tensor([3.0, -2.0, 1.0])
        made = kind([x], **options)
        out = []
        for n in range(6):

            def closure():
                x.grad = 2 * x + x**3
                return float((x**2 + x**4 / 4).sum())

            if n == 3:  # as a checkpoint does
                made.load_state_dict(made.state_dict())
            closure()
            made.step(closure)
            out.append(x.clone())
        return torch.stack(out)

    ours, theirs = (path(getattr(where, name)) for where in (optimisers, torch.optim))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours[0], ours[-1])
