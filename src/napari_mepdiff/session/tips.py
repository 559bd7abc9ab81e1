"""What each setting does to the picture, for tooltips.

Units, ranges and names come from the settings models themselves.
"""

from __future__ import annotations

EFFECTS: dict[str, str] = {
    "weight": "Higher: nearer to the measurement, and noisier. "
    "Lower: smoother, more of what crystals usually look like; 0 ignores the data. "
    "Change it while you watch the misfit.",
    "schedule": "Where along the run the data pull: "
    "shifted-sigmoid pulls from the start and lets go at the end (the paper's); "
    "alpha begins gently and pulls at the end; curve is yours to draw.",
    "guidance": "atoms gives the sharpest depth, and needs the elements. "
    "The others leave every voxel free: faster, softer in depth.",
    "elements": "With them whole atoms are placed: far better depth. "
    "A wrong element gives atoms of the wrong strength.",
    "misfit": "poisson counts electrons and suits low doses; "
    "amplitude is gentle with bright pixels; intensity is the paper's.",
    "fraction": "Fewer positions: faster steps, noisier pull. Below a tenth the picture trembles.",
    "inner": "More: nearer to the data in each step, slower.",
    "steps": "More: finer descent from noise, a cleaner picture, in proportion more time.",
    "passes": "More passes: atoms get more chances to move to their slice.",
    "samples": "More answers at once: a calmer mean, "
    "and a spread that shows where depth is uncertain.",
    "seed": "Another seed is another draw: what differs between seeds is not known from the data.",
    "eta": "1: fresh noise at every step, more varied answers. "
    "0: none, smoother and repeatable in detail.",
    "condition": "What the network is told at the start. "
    "volume: the ordinary solution with its smeared depth; sum: its projection only.",
    "trust": "How far the depth of that ordinary solution is believed. "
    "Higher keeps its depth, smears included.",
    "evaluations": "Work spent on the ordinary solution before sampling. "
    "More: a better depth sum to begin with.",
    "odds": "How firmly the samples of the network pull atoms to a slice. "
    "Higher: more crystal-like, less led by the data.",
    "non_negative": "On: no voxel below zero phase. "
    "Right for atoms in vacuum; wrong if the support is subtracted.",
    "sigma_max": "Noise at the start. Lower begins nearer to what is known.",
    "sigma_min": "Noise left at the end. Lower: sharper, and longer.",
    "detector_stride": "2: every second detector pixel wherever nothing is lost by it, "
    "a quarter of the work.",
    "learning_rate": "Higher: faster, and at some point it diverges.",
    "iterations": "More: closer to the data; beyond a point only noise is fitted.",
    "l1": "Higher: emptier background, weaker atoms.",
    "depth_smoothing": "Higher: atoms are drawn out along depth, less noise between slices.",
    "slices": "Too few mix atoms of different depth; too many are not determined by the data.",
    "slice_thickness": "Slices times thickness is the depth of the box: "
    "it must hold the whole specimen.",
    "together": "Up to about 10 Å at a time costs no accuracy that depth resolution would show.",
    "device": "A GPU is many times faster. The CPU always works.",
    "modes": "2 to 6 model a partially coherent beam; each costs as much as the first.",
    "prior": "Which crystals the network has seen.",
    "precision": "Leave it on auto.",
    "overfocus": "Sets the width of the probe on the specimen. "
    "A wrong sign turns the picture inside out.",
    "semi_angle": "The radius of the bright disk, "
    "and the finest detail and depth that can be resolved.",
    "pixel_mrad": "Sets the voxel size: a wrong value scales the whole picture.",
    "rotation": "Wrong by a few degrees: atoms become triangles or double. "
    "Estimate it from the centre of mass.",
    "scan_step_y": "Wrong: the picture is stretched, and the misfit stays high.",
    "scan_step_x": "Wrong: the picture is stretched, and the misfit stays high.",
    "energy": "Sets wavelength and interaction: phase and depth scale with it.",
    "transpose": "Detectors differ in which axis is stored first. Wrong: nothing converges.",
    "flip_y": "Some cameras store patterns upside down. Wrong: nothing converges.",
    "flip_x": "Some cameras mirror patterns. Wrong: nothing converges.",
    "bin": "Quicker, and a smaller window: the probe must still fit into it.",
    "crop": "Quicker, and coarser voxels.",
    "preview": "A first look, to see that orientation and focus are right.",
}


def tip(
    name: str,
    description: str = "",
    unit: str = "",
    bounds: tuple[float | None, float | None] = (None, None),
) -> str:
    """The tooltip of a setting."""
    low, high = bounds
    lines = [description[:1].upper() + description[1:]] if description else []
    if unit:
        lines.append(f"Unit: {unit}")
    if low is not None and high is not None:
        lines.append(f"Range: {low:g} to {high:g}")
    elif low is not None:
        lines.append(f"At least {low:g}")
    elif high is not None:
        lines.append(f"At most {high:g}")
    if name in EFFECTS:
        lines.append(EFFECTS[name])
    lines.append(f"In Python and on the command line: {name}")
    return "<p style='white-space:pre-wrap;max-width:340px'>" + "<br>".join(lines) + "</p>"
