"""What is affected, and why: decided before anything is done."""
