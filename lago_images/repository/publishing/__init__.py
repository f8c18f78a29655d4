"""Make releases, withdraw and collect them, and render what is public."""
