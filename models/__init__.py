"""Model definitions, configurations, checkpoints, processors and auto classes."""
