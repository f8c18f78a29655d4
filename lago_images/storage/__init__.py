"""Objects under keys, with conditional writes: a bucket or a directory."""
