"""From measurement to volume: every solver is a generator of frames."""
