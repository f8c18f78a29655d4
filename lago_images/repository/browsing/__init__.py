"""Look at what is published: which images, what happened to them, what differs between two."""
