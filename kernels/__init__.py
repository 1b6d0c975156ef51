"""One operation a file: plain-torch reference, Triton kernel, dispatching function."""
