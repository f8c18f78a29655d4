"""Define the JSON records of a repository, and read all of them."""
