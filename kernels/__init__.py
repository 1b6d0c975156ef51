"""Neural network operations, one a file: plain-torch reference, Triton kernel, dispatching function."""
