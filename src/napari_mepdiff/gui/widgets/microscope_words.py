"""What the values of the microscope are, in plain words, for tooltips."""

from __future__ import annotations

SHOWN_AS = {
    "phi12": "φ12",
    "phi21": "φ21",
    "phi23": "φ23",
    "source size": "source",
    "background": "counts",
    "electrons a pattern": "electrons",
    "scan rotation": "rotation",
    "scan step y": "step y",
    "scan step x": "step x",
    "scan scale y": "scale y",
    "scan scale x": "scale x",
    "scan shear": "shear",
    "scan turn": "turn",
    "detector pixel": "pixel",
    "strongest mode": "mode 1",
    "semi-angle": "aperture",
}

ERRORS = {
    "estimated": "By the patterns alone, before any reconstruction. ± is one standard deviation.",
    "refined": "By a reconstruction with the solver refine. ± is one standard deviation, with what "
    "probe and volume can make up for in each other. It supposes that the run has come to rest: "
    "what the curves below show still moving is not found yet.",
}

BLOCKS = {
    "probe": "Whether the next run of refine fits the probe: its aberrations and source size "
    "first, then every pixel of it. Which of these is chosen in the Reconstruct dock (Probe).",
    "positions": "Whether the next run of refine moves the positions of the beam: all together "
    "(scale, shear, rotation) and each by itself. Which is chosen in the Reconstruct dock "
    "(Positions).",
    "tilt": "Whether the next run of refine finds the tilt of the beam against the columns of "
    "atoms.",
    "background": "Whether the next run of refine finds how many counts are not of the specimen.",
}

ABOUT = {
    "C10": "Defocus at the entrance surface of the specimen. Positive is overfocus: the beam "
    "crosses over above the specimen.",
    "C12": "Twofold astigmatism: the focus differs along two directions at right angles.",
    "phi12": "Direction of the twofold astigmatism, from +x towards +y.",
    "C21": "Axial coma.",
    "phi21": "Direction of the coma, from +x towards +y.",
    "C23": "Threefold astigmatism.",
    "phi23": "Direction of the threefold astigmatism, from +x towards +y.",
    "C30": "Spherical aberration; taken as it is told.",
    "semi-angle": "Convergence semi-angle: the radius of the bright disk.",
    "source size": "How far the source smears the probe, rms for each axis.",
    "strongest mode": "Share of the electrons in the strongest mode of the probe: 100 % is a fully "
    "coherent beam.",
    "scan rotation": "Of the scan against the detector.",
    "scan step y": "Between rows of the scan.",
    "scan step x": "Between positions of a row.",
    "scan scale y": "By how much the scan is longer along y than told.",
    "scan scale x": "By how much the scan is longer along x than told.",
    "scan shear": "How far the axes of the scan are from a right angle.",
    "scan turn": "Turn of the scan beyond the told rotation, from +y towards +x.",
    "jitter": "What of the positions' moves is neither scale nor shear nor turn, rms for each "
    "axis.",
    "tilt y": "Tilt of the beam against the columns of atoms, along y.",
    "tilt x": "Tilt of the beam against the columns of atoms, along x.",
    "background": "Electrons per pixel of every pattern that are not of the specimen.",
    "beam energy": "Sets wavelength and interaction; it cannot be estimated.",
    "detector pixel": "Sets the size of the voxels.",
    "disk centre y": "Row of the middle of the bright disk.",
    "disk centre x": "Column of the middle of the bright disk.",
    "disk radius": "Of the bright disk.",
    "gain": "What the detector gives for one electron, by how its values scatter.",
    "electrons a pattern": "How many electrons a pattern has on average.",
    "dose": "Electrons per area of the scan.",
}
