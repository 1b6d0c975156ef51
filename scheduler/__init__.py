"""Requests, continuous batching, pages of keys and values, the generation loop."""
