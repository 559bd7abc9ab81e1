"""Film of a run: its kept frames as GIF or MP4, with a scale bar and the step written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..base.extras import require
from ..base.files import atomic

View = Literal["slices", "slice", "sum"]
SUFFIXES = (".gif", ".mp4")


class Frames(Protocol):
    """Volumes (D, H, W) by number: a list, an array (N, D, H, W), or one that is read from disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


def save_film(
    frames: Frames,
    path: str | Path,
    *,
    voxel_size: tuple[float, float, float],
    labels: Sequence[str] | None = None,
    view: View = "slices",
    number: int = 0,
    limits: tuple[float, float] | None = None,
    colormap: str = "inferno",
    rate: float = 12.0,
    width: int = 640,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Write frames as a film.

    Parameters
    ----------
    frames : sequence or array
        (D, H, W) each, rad; taken one at a time.
    path : path
        .gif, or .mp4 where imageio-ffmpeg is installed.
    voxel_size : (dz, dy, dx)
        Å.
    labels : sequence of str, optional
        Written into each frame.
    view : 'slices', 'slice' or 'sum'
        All slices side by side, one of them, or the depth sum.
    number : int
        Which slice, for 'slice'.
    limits : (low, high), optional
        Contrast, rad; 0 to the 99.9th percentile of the last frame if not given.
    rate : float
        Frames per second.
    width : int
        Pixels.
    progress : callable, optional
        Told the fraction done; may raise to end the work, which leaves no file.

    Raises
    ------
    ValueError
        If there are no frames, or the suffix is not one of a film.
    MissingExtra
        If MP4 is asked for and imageio-ffmpeg is not installed.
    FileExistsError
        If there is something at `path` already.
    """
    import imageio.v3 as iio
    from matplotlib import colormaps

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"a film is a .gif or an .mp4, not {suffix or 'a name without suffix'}")
    if not len(frames):
        raise ValueError("there are no kept frames to make a film of")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or allow overwriting")
    if suffix == ".mp4":
        require("imageio_ffmpeg", "film", "An MP4 film (a GIF needs nothing)")
    last = arrange(frames[len(frames) - 1], view, number)
    low, high = (
        limits
        if limits is not None
        else (min(0.0, float(last.min())), float(np.percentile(last, 99.9)))
    )
    table = colormaps[colormap]
    pixel = voxel_size[2]

    def picture(n: int) -> NDArray[np.uint8]:
        flat = arrange(frames[n], view, number)
        unit = np.clip((flat - low) / max(high - low, 1e-9), 0, 1)
        colours = (table(unit)[..., :3] * 255).astype(np.uint8)
        return _written(colours, width, labels[n] if labels else "", pixel)

    with atomic(path) as temporary:

        def each() -> Iterator[NDArray[np.uint8]]:
            for n in range(len(frames)):
                yield picture(n)
                if progress is not None:
                    progress((n + 1) / (len(frames) + 1))

        if suffix == ".gif":
            # encoded first: a writer that finds no room tries once more when it is collected
            film = iio.imwrite(
                "<bytes>", list(each()), extension=".gif", duration=1000 / rate, loop=0
            )
            temporary.write_bytes(film)
        else:
            from imageio import v2

            open_writer: Any = v2.get_writer
            writer = open_writer(
                temporary, format="FFMPEG", mode="I", fps=rate, codec="libx264", macro_block_size=2
            )
            with writer as film:
                for one in each():
                    film.append_data(one)
            _require_whole(temporary, path, len(frames))
    if progress is not None:
        progress(1.0)
    return path


def _require_whole(made: Path, path: Path, count: int) -> None:
    """The encoder is a process of its own, which ends without a word where the disk is full."""
    ffmpeg = require("imageio_ffmpeg", "film", "An MP4 film")
    try:
        found = ffmpeg.count_frames_and_secs(str(made))[0]
    except RuntimeError:  # no film at all
        found = 0
    if found < count:
        raise OSError(
            f"the film {path} was not written: the encoder ended after {found} of {count} frames; "
            "free some space or choose another folder"
        )


def arrange(volume: NDArray[Any], view: View, number: int = 0) -> NDArray[Any]:
    """A volume as one picture: slices in rows of up to four (first at the top left), one slice, or
    the depth sum.
    """
    array = np.asarray(volume)
    if view == "sum":
        return array.sum(axis=0)
    if view == "slice":
        return array[int(np.clip(number, 0, len(array) - 1))]
    if view != "slices":
        raise ValueError(f"a film shows slices, one slice or the sum; got {view!r}")
    depth, height, width = array.shape
    columns = min(4, depth)
    rows = -(-depth // columns)
    gap = max(1, width // 32)
    out = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), float(array.min()))
    for n in range(depth):
        y, x = n // columns * (height + gap), n % columns * (width + gap)
        out[y : y + height, x : x + width] = array[n]
    return out


def _written(colours: NDArray[np.uint8], width: int, label: str, pixel: float) -> NDArray[np.uint8]:
    """Enlarged, with a strip below for scale bar and label; even sides, as video wants them."""
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, round(width / colours.shape[1]))
    image = Image.fromarray(colours).resize(
        (colours.shape[1] * factor, colours.shape[0] * factor), Image.Resampling.NEAREST
    )
    strip = 34
    sheet = Image.new(
        "RGB", ((image.width + 1) // 2 * 2, (image.height + strip + 1) // 2 * 2), "black"
    )
    sheet.paste(image, (0, 0))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    extent = colours.shape[1] * pixel
    bar = max(
        (v for v in (1, 2, 5, 10, 20, 50, 100, 200, 500) if v <= extent / 5), default=extent / 5
    )
    length = round(bar / pixel * factor)
    y = image.height + 12
    draw.rectangle((10, y, 10 + length, y + 4), fill="white")
    draw.text((18 + length, y - 7), f"{bar:g} Å", fill="white", font=font)
    box = draw.textlength(label, font=font)
    draw.text((sheet.width - box - 10, y - 7), label, fill="white", font=font)
    return np.asarray(sheet)
