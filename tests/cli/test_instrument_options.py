import json

import pytest
import typer

from napari_mepdiff.cli.instrument import real_instrument, told_and_true
from napari_mepdiff.measurement.instrument import Instrument
from napari_mepdiff.measurement.simulate import Conditions, simulate
from napari_mepdiff.physics.optics import Optics
from napari_mepdiff.physics.scan import Raster
from napari_mepdiff.specimen.crystals import srtio3

from ..needs import needs


def test_an_instrument_comes_from_a_file_a_seed_or_options(tmp_path):
    assert real_instrument(None, None, {"jitter": None}) is None
    assert real_instrument(None, None, {"jitter": 0.1}) == Instrument(jitter=0.1)
    changed = Instrument.drawn(3).model_copy(update={"jitter": 0.0})
    assert real_instrument(None, 3, {"jitter": 0.0}) == changed
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"C12": 12.0}))
    assert real_instrument(path, None, {"gain": 2.0}) == Instrument(C12=12.0, gain=2.0)
    with pytest.raises(typer.BadParameter, match="not both"):
        real_instrument(path, 3, {})
    with pytest.raises(typer.BadParameter, match="jitter"):
        real_instrument(None, None, {"jitter": -1})
    path.write_text("{")
    with pytest.raises(typer.BadParameter, match="JSON"):
        real_instrument(path, None, {})


@needs("abtem")
def test_it_says_what_was_told_and_what_was_true():
    errors = Instrument(overfocus_error=-20, C12=15, tilt=(1, 2), gain=2.5, hot_pixels=1)
    conditions = Conditions(
        scan=Raster(shape=(2, 2)), slices=1, detector=32, geometry="extended", instrument=errors,
        optics=Optics(overfocus=60),
    )  # fmt: skip
    text = "\n".join(told_and_true(simulate(srtio3(), conditions)))
    for part in ("40 Å, 60 Å", "astigmatism 15 Å", "tilt 1, 2", "gain 2.5", "1 hot", "unmarked"):
        assert part in text
