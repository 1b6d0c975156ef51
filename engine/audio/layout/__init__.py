"""Layouts of audio files: the parts that hold audio, and damage that decoders pass over in silence.

A decoder reads what a header declares and stops. Here containers are walked by their own structure first: a
length that a header gets wrong is replaced, files joined end to end become parts, a cut file is an error.
"""
