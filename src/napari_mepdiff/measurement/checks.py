"""Names what is wrong with a measurement, in words that say what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .dataset import DataError, FourDSTEM
from .detectors import find_disk
from .findings import Finding, error, warning
from .geometry import disk_size, known, places, probe_size
from .reading import Summary
from .values import FEW, empty_patterns, faulty_pixels, quantum, scatter

__all__ = ["Finding", "probe_size", "require_known", "require_valid", "validate"]


def validate(data: FourDSTEM, seen: Summary | None = None) -> list[Finding]:
    """Look through the data once and check numbers against each other.

    Parameters
    ----------
    seen : Summary, optional
        Of an earlier pass; the data keep their own.
    """
    seen = seen or data.reading.summary()
    empty = list(_empty(seen))
    if any(f.code == "empty" for f in empty):
        return empty
    found = [*_values(data, seen), *empty, *_pixels(data, seen), *known(data)]
    return [*found, *disk_size(data, find_disk(seen.pacbed)), *places(data), *data_notes(data)]


def data_notes(data: FourDSTEM) -> list[Finding]:
    """What the reader of the file could not take over, or had to guess."""
    return [warning("file", text) for text in data.provenance.get("doubts", ())]


def require_known(data: FourDSTEM) -> None:
    """Check what can be checked without reading a pattern.

    Raises
    ------
    DataError
        With all errors in its message.
    """
    _refuse([*known(data), *places(data)])


def require_valid(data: FourDSTEM) -> list[Finding]:
    """Warnings, if there is nothing worse.

    Raises
    ------
    DataError
        With all errors in its message.
    """
    found = validate(data)
    _refuse(found)
    return found


def _refuse(found: list[Finding]) -> None:
    errors = [f.message for f in found if f.level == "error"]
    if errors:
        raise DataError("the data cannot be reconstructed:\n- " + "\n- ".join(errors))


# ---- the values ---------------------------------------------------------------------------------
def _empty(seen: Summary) -> Iterator[Finding]:
    """Patterns without one count."""
    count, everything = int((seen.total <= 0).sum()), seen.total.size
    if count == everything:
        yield error("empty", "every pattern is empty: wrong data set, or the file was never filled")
        return
    dropped = empty_patterns(seen)
    if not dropped.any():
        return
    if count > everything / 2:
        yield error(
            "zero-patterns",
            f"{count} of {everything} patterns are all zero: was the scan taken for the detector "
            "(say the order of the axes when the file is opened), or was it stopped early? Crop "
            "the scan to what was recorded",
        )
        return
    first = ", ".join(f"({y}, {x})" for y, x in np.argwhere(dropped)[:3])
    more = ", …" if count > 3 else ""
    one = count == 1
    yield warning(
        "zero-patterns",
        f"{count} of {everything} patterns {'holds' if one else 'hold'} not one count, at scan "
        f"position{'' if one else 's'} (y, x) {first}{more}: dropped frames; a reconstruction "
        f"leaves {'it' if one else 'them'} out",
    )


def _values(data: FourDSTEM, seen: Summary) -> Iterator[Finding]:
    """Whether these are counts of electrons."""
    if seen.minimum < 0:
        yield error(
            "negative",
            f"the smallest value is {seen.minimum:g}: counts cannot be negative; subtract less "
            "background, or clip (clip_negative in the preparation)",
        )
    typical = float(np.median(seen.total))
    if typical > 0 and (seen.total > 20 * typical).any():
        yield warning(
            "outliers", "some patterns have more than 20 times the usual counts: look for glitches"
        )
    use = np.ones(data.detector_shape, bool) if data.mask is None else data.mask > 0
    use &= ~faulty_pixels(seen).any
    sample = seen.sample[:, use] if use.any() else seen.sample
    step = quantum(sample)
    advice = "" if step is None else f"; one electron seems to be {step:.6g}: divide by it"
    if typical < FEW and sample.dtype.kind == "f" and (step is None or abs(step - 1) > 0.01):
        yield error(
            "no-counts",
            f"the patterns sum to {typical:.3g}: these are no counts of electrons but normalised "
            "values, and noise means nothing for them"
            f"{advice or '; divide by 1 / (electrons in a '}"
            f"{'' if advice else 'pattern), dose × scan step²'} (gain in the preparation)",
        )
    elif step is not None and abs(step - 1) > 0.01:
        yield warning(
            "gain",
            f"the values come in steps of {step:.6g}, counts of electrons in steps of 1: divide "
            f"by {step:.6g} (gain in the preparation)",
        )
    elif step is None and seen.minimum >= 0 and (noise := scatter(sample)) is not None:
        if min(noise) > 2.5:
            yield warning(
                "gain",
                "the values scatter several times as much as counts of electrons: is one electron "
                "many of them? Divide by what the detector gives for one (gain in the preparation)",
            )
        elif noise[1] < 0.4:
            yield warning(
                "smooth",
                f"the values scatter only {noise[1]:.2g} times as much as counts of electrons: "
                "they are normalised, averaged, or simulated without noise; a misfit relative to "
                "shot noise means nothing for them",
            )
    sent = data.calibration.electrons
    if sent is not None and not 0.3 < float(seen.total.mean()) / sent < 1.15:
        yield warning(
            "dose",
            f"dose × scan step² is {sent:,.4g} electrons a pattern, the patterns hold "
            f"{seen.total.mean():,.4g}: dose, scan step or the gain of the detector is wrong",
        )


def _pixels(data: FourDSTEM, seen: Summary) -> Iterator[Finding]:
    """Detector pixels that do not measure and are not masked."""
    use = np.ones(data.detector_shape, bool) if data.mask is None else data.mask > 0
    faulty = faulty_pixels(seen)
    advice = "repair and mask them (repair_pixels in the preparation)"
    if seen.not_finite:
        yield error(
            "nan",
            f"{seen.not_finite} values in {int(faulty.bad.sum())} detector pixels are NaN or "
            f"infinite: {advice}",
        )
    for marks, level, code, what in (
        (faulty.saturated & use, "error", "saturated", f"read {seen.maximum:g} all the time"),
        (faulty.dead & use, "warning", "dead-pixels", "read nothing amid counts"),
        (faulty.hot & use, "warning", "hot-pixels", "read far more than their neighbours"),
    ):
        if marks.any():
            y, x = np.argwhere(marks)[0]
            count = int(marks.sum())
            yield Finding(
                "error" if level == "error" else "warning",
                code,
                f"{count} detector pixel{'s' if count > 1 else ''} {what}, the first at "
                f"(y, x) ({y}, {x}): {advice}",
            )
    often = (seen.top > 0.01 * seen.total.size) & use & ~faulty.saturated
    top = int(seen.maximum) if seen.sample.dtype.kind in "ui" else 0
    if top >= 63 and (top + 1) & top == 0 and often.any():
        yield warning(
            "clipped",
            f"{int(often.sum())} detector pixels reach {top}, the largest number of "
            f"{top.bit_length()} bits, in more than 1 % of the patterns: the detector was "
            "overexposed, brightness there is too small",
        )
