"""Published checkpoints of other makers, read into the models of this package."""
