"""Find the command that virt-sysprep was at in the lines that it prints."""

from collections.abc import Sequence

from lago_images.specs.model import Operation

# What mlcustomize's customize_run.ml prints before each command.
_VERBS = {
    "append-line": "Appending line to ",
    "chmod": "Changing permissions of ",
    "copy": "Copying (in image): ",
    "copy-in": "Copying: ",
    "delete": "Deleting: ",
    "edit": "Editing: ",
    "firstboot": "Installing firstboot script: ",
    "firstboot-command": "Installing firstboot command: ",
    "firstboot-install": "Installing firstboot packages: ",
    "hostname": "Setting the hostname: ",
    "install": "Installing packages: ",
    "link": "Linking: ",
    "mkdir": "Making directory: ",
    "move": "Moving: ",
    "run": "Running: ",
    "run-command": "Running: ",
    "scrub": "Scrubbing: ",
    "sm-attach": "Attaching to the pool ",
    "sm-register": "Registering with subscription-manager",
    "sm-remove": "Removing all the subscriptions",
    "sm-unregister": "Unregistering with subscription-manager",
    "ssh-inject": "SSH key inject: ",
    "timezone": "Setting the timezone: ",
    "touch": "Running touch: ",
    "truncate": "Truncating: ",
    "truncate-recursive": "Recursively truncating: ",
    "uninstall": "Uninstalling packages: ",
    "update": "Updating packages",
    "upload": "Uploading: ",
    "write": "Writing: ",
}
# The argument, up to a newline, follows the verb as written.
_WHOLE = frozenset(
    (
        "delete",
        "firstboot",
        "firstboot-command",
        "hostname",
        "mkdir",
        "run",
        "run-command",
        "scrub",
        "timezone",
        "touch",
        "truncate",
        "truncate-recursive",
    )
)
_FIRST_PART = frozenset(
    ("append-line", "copy", "copy-in", "edit", "move", "ssh-inject", "upload", "write")
)
_LISTS = frozenset(("install", "uninstall", "firstboot-install"))


def running(operations: Sequence[Operation], seen: Sequence[str]) -> Operation | None:
    """Return the operation that the last of the lines ``seen`` announced; None without one.

    Passwords are set together after all commands, and are announced as such.
    """
    current, following = None, 0
    for line in seen:
        current = None
        for number in range(following, len(operations)):
            operation = operations[number]
            verb = _VERBS.get(operation.name)
            announcement = f"{verb}{_shown_argument(operation)}".rstrip()
            if verb is not None and line.rstrip().startswith(announcement):
                current, following = operation, number + 1
                break
    return current


def _shown_argument(operation: Operation) -> str:
    argument = operation.argument
    if operation.name in _WHOLE:
        return argument.partition("\n")[0]
    if operation.name in _FIRST_PART:
        return argument.partition(":")[0]
    if operation.name in _LISTS:
        return argument.replace(",", " ")
    return ""
