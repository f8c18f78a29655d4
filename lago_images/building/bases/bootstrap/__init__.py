"""Bootstrap a disk straight from a distribution's signed packages."""
