"""What decides how a training run goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..prior.network import PRESETS, UNetConfig


class TrainSettings(BaseModel):
    """Everything that decides how a training run goes on; kept in its checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: UNetConfig = Field(default_factory=lambda: PRESETS["compact"], title="Network")
    batch: int = Field(8, ge=1, title="Batch", description="volumes per step and process")
    learning_rate: float = Field(2e-3, gt=0, title="Learning rate")
    weight_decay: float = Field(0.01, ge=0, title="Weight decay")
    warm_up: int = Field(200, ge=0, title="Warm-up", description="steps to the full learning rate")
    half_life: int = Field(
        0,
        ge=0,
        title="Half-life",
        description="steps after which the learning rate has halved; 0: constant",
    )
    fall: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Fall",
        description="last share of the run over which the learning rate falls to zero",
    )
    average: float = Field(
        0.999, ge=0, lt=1, title="EMA decay", description="of the moving average of the weights"
    )
    average_over: int = Field(
        0,
        ge=0,
        title="EMA volumes",
        description="volumes over which the weights are averaged; 0: by the EMA decay",
    )
    clip: float = Field(1.0, gt=0, title="Gradient clip", description="largest norm of a gradient")
    no_condition: float = Field(
        0.35, ge=0, le=1, title="No condition", description="share of volumes that see none"
    )
    only_sum: float = Field(
        0.25, ge=0, le=1, title="Depth sum only", description="share that sees only the depth sum"
    )
    no_elements: float = Field(
        0.5,
        ge=0,
        le=1,
        title="No elements",
        description="share of volumes whose elements are not told, if the network can be told",
    )
    false_elements: float = Field(
        0.2,
        ge=0,
        le=1,
        title="False elements",
        description="share of the others that are told one or two too many",
    )
    no_answer: float = Field(
        0.4,
        ge=0,
        le=1,
        title="No data",
        description="share of volumes of which no data are asked, if the network can be shown them",
    )
    other_shapes: float = Field(
        0.15,
        ge=0,
        le=1,
        title="Other shapes",
        description="share of steps on another number of voxels",
    )
    lateral: int = Field(
        64, ge=16, title="Lateral size", description="voxels a side of the usual volume"
    )
    slices: int = Field(8, ge=4, title="Slices", description="of the usual volume")
    experimental_weight: float = Field(
        4.0, gt=0, title="Experimental", description="how much oftener such structures are drawn"
    )
    any_direction: float = Field(
        0.1, ge=0, le=1, title="Any direction", description="share seen along a random direction"
    )
    vacancies: float = Field(
        0.01, ge=0, lt=1, title="Vacancies", description="fraction of atoms left out"
    )
    precision: Literal["auto", "bf16", "float32"] = Field(
        "auto", title="Precision", description="auto: bf16 where the processor or GPU has it"
    )
    compile: bool = Field(
        False, title="Compile", description="the network by torch.compile, for the usual volume"
    )
    weighting_mean: float = Field(-7.0, title="Weighting mean", description="λ")
    weighting_spread: float = Field(3.0, gt=0, title="Weighting spread", description="λ")
    seed: int = Field(0, ge=0, title="Seed")
