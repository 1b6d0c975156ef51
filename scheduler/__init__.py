"""Continuous batching: requests, scheduler, paged key-value cache and generation loop."""
