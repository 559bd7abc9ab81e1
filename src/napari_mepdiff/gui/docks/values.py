"""What the detector's values are and which pixels to believe: a part of the Data dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...measurement.preparation import Preparation
from ..widgets.basic import Section, words
from ..widgets.forms import Form

if TYPE_CHECKING:
    from ...measurement.dataset import FourDSTEM


class ValuesSection(Section):
    """Gain, negative values, faulty pixels.

    Parameters
    ----------
    change : callable
        Changes a field of the preparation; raises ValueError where it does not fit.
    """

    def __init__(self, change: Callable[[str, Any], None]) -> None:
        super().__init__("Detector values")
        self.form = Form(Preparation, ("gain", "clip_negative", "repair_pixels"), change)
        self.repaired = words("", small=True)
        self.add(self.form, self.repaired)

    def measured(self, raw: FourDSTEM | None, preparation: Preparation) -> None:
        """Say how many pixels are repaired; called when a measurement was opened or prepared."""
        faulty = raw.reading.faulty if raw is not None and preparation.repair_pixels else None
        text = ""
        if faulty is not None:
            number = int(faulty.any.sum())
            text = (
                f"{number} pixel{'s are' if number > 1 else ' is'} filled from neighbours, and "
                "masked"
                if number
                else "no faulty pixel was found"
            )
        self.repaired.setText(text)
        self.repaired.setVisible(bool(text))
