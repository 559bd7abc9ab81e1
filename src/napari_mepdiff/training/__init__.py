"""Training a prior on crystal structures: stream of volumes, corruption of conditions, step, run,
validation.
"""
