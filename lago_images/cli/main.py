"""The command line's entry."""

import click


@click.group()
def main() -> None:
    """Turn VM image specs in git into a published repository."""
