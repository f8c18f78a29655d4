"""What an image can stand on, a module a kind."""
