"""Measurement of a model on a machine, for `tritone bench`."""
