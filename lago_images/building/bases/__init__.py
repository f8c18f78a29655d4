"""Prepare what an image stands on: a module for each kind of base."""
