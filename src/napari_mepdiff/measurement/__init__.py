"""4D-STEM data: simulated, read, calibrated, validated, looked at."""
