"""The published whole: what is in it, what is rendered from it, how it is changed and checked."""
