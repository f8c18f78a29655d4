"""From a spec's values back to text, for tests of the parser."""

from collections.abc import Iterable

from lago_images.specs.model import Operation, Spec


def commands(operations: Iterable[Operation]) -> str:
    """What virt-builder's ``--commands-from-file`` reads as these commands."""
    return "".join(_command(operation) for operation in operations)


def text(spec: Spec) -> str:
    """A file that parses to the same spec, but for its line numbers."""
    properties = "".join(f"#{key}={value}\n" for key, value in spec.properties.items())
    return properties + commands(spec.operations)


def _command(operation: Operation) -> str:
    # A newline in an argument is written as a continued line.
    argument = operation.argument.replace("\n", "\\\n")
    return f"{operation.name} {argument}\n" if argument else f"{operation.name}\n"
