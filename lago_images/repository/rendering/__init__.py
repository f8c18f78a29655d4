"""What clients read: pure functions of the releases."""
