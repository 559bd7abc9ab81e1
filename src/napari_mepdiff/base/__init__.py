"""Files, devices, log: what everything stands on."""
