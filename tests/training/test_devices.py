"""A training step on a GPU that is not there: no tensor is left on the CPU, and none has the wrong
type.

A step as a whole asks whether its gradient is finite, which is a number; its parts are run one by
one. The running means of the losses are numbers too. See tests/prior/test_devices.py for what else
cannot be run so.
"""

from __future__ import annotations

import pytest
import torch

from napari_mepdiff.specimen.structures import load_structures
from napari_mepdiff.training import microscopes
from napari_mepdiff.training import step as step_module
from napari_mepdiff.training.corruption import corrupt
from napari_mepdiff.training.step import Trainer
from napari_mepdiff.training.validation import losses

from ..fake import DEVICE, built, fake_gpu, really
from .small import SETTINGS

pytestmark = built


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16", "auto"])
def test_a_step_stays_on_the_gpu(precision, told, monkeypatch):
    structures = load_structures().part("validation")
    network = SETTINGS.network.model_copy(update={"elements": told, "answer": told})
    settings = SETTINGS.model_copy(update={"precision": precision, "network": network})
    monkeypatch.setattr(step_module, "UNet", really(step_module.UNet))
    monkeypatch.setattr(
        microscopes, "probe_from_parameters", really(microscopes.probe_from_parameters)
    )
    inside = []
    with fake_gpu():
        trainer = Trainer(settings, structures, DEVICE)
        trainer.network.stem.register_forward_hook(lambda m, i, out: inside.append(out.dtype))
        batch = trainer.asked(trainer.draw(), 3)
        found = trainer.gradient(batch, 3)
        norm = torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), settings.clip)
        trainer.optimiser.step()
        trainer.follow()
    made = {k: v for k, v in batch._asdict().items() if v is not None}
    assert ("answer" in made) == ("elements" in made) == told
    for name, tensor in [*made.items(), ("losses", found), ("norm", norm)]:
        assert tensor.device.type == DEVICE, name
        assert tensor.dtype == torch.float32, name
    assert found.shape == (settings.batch,)
    for name, parameter in trainer.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.device.type == DEVICE, name
        assert parameter.grad.dtype == parameter.dtype == torch.float32, name
        assert trainer.average[name].device.type == DEVICE, name
    assert set(inside) == {torch.float32 if precision == "float32" else torch.bfloat16}


def test_conditions_are_made_where_the_volumes_are():
    with fake_gpu():
        x = torch.randn(5, 8, 32, 32, device=DEVICE)
        condition, flags = corrupt(x, torch.Generator().manual_seed(0))
    assert condition.device.type == flags.device.type == DEVICE
    assert condition.shape == (5, 2, 8, 32, 32)


def test_validation_puts_all_that_the_network_takes_on_the_gpu():
    """The losses are numbers, which are not there: it ends where the first is asked for."""

    def network(*given):
        assert {t.device.type for t in given} == {DEVICE}
        asked.append(given)
        return given[0]

    asked = []
    with fake_gpu(), pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
        losses(network, torch.rand(2, 8, 32, 32), device=DEVICE)
    assert asked
