"""Read and check specs and the host files that they use."""
