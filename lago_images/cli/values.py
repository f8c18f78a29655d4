"""Types of options' values, whose errors say in plain words what is wanted."""

import click


class Number(click.IntRange):
    """Take a whole number in a range; ``what`` says what it is the number of."""

    name = "number"

    def __init__(self, what: str, least: int, most: int | None = None) -> None:
        super().__init__(least, most)
        self.what = what

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            number = int(str(value))
        except ValueError:
            self.fail(f"{str(value)!r} is not {self.what}", param, ctx)
        return super().convert(number, param, ctx)


DAYS = Number("a number of days", 0)
CHAINS = Number("a number of chains", 1)
EVENTS = Number("a number of events", 1)
REVISION = Number("the number of a revision", 1)
PORT_NUMBER = Number("the number of a port", 0, 65535)
