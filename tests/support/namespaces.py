"""Whether this machine can run the engine of namespaces."""

from lago_images.building.customise.namespace import sandbox, user_namespace
from lago_images.errors import Error
from lago_images.host.process import Runner, search_path
from tests.tools import cannot


def need_namespaces() -> None:
    """Skip a module (in CI fail) where programs or rights for namespaces are missing."""
    runner = Runner()
    if missing := sandbox.missing_programs(search_path(runner.environ), network=True):
        cannot("not installed: " + ", ".join(missing))
    try:
        with user_namespace.namespace(runner, user_namespace.block()):
            pass
    except Error as error:
        cannot(f"no namespaces: {error.message}")
