"""What can be done to a 4D-STEM measurement before it is reconstructed: methods of FourDSTEM.

Each takes a dataset and returns a new one, still lazy: of the scan (crop, bin, swap, calibrate), of
the detector (crop, bin, mirror, centre), of the counts (background, gain, repair). Positions, mask,
calibration and ground truth follow, or are dropped where they no longer hold; the provenance names
every step.
"""
