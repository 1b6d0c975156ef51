"""Whisper (arXiv 2212.04356): encoder-decoder model from log-mel features to text in many languages."""
