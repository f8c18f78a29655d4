"""Measurements beside other tools: ``python -m tests.benchmarks NAME``."""
