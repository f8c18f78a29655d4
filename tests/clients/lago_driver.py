"""Runs in the interpreter that runs lago, Python 2 or 3: does what ``lago init`` does.

    python lago_driver.py FOLDER-OF-LAGO list REPO-URL
    python lago_driver.py FOLDER-OF-LAGO download REPO-URL STORE TEMPLATE [VERSION]

The last line of the output is a JSON object; its ``error`` is what lago raised.
"""

import json
import sys


def _python2_semantics():
    """What 2to3 cannot convert: in Python 2, text was bytes, numbers were truth values,
    and a 404 was an answer.

    lago's own decisions (what it asks for, in which order, what it compares) stay its own.
    """
    import builtins
    import types
    import urllib.request

    # Only asked whether guestfs is there; the module left the library in 3.12.
    sys.modules.setdefault("imp", types.SimpleNamespace(find_module=__import__))  # type: ignore[call-overload]

    import lago.templates
    import lago.utils

    class Answers(urllib.request.HTTPErrorProcessor):
        def http_response(self, request, response):
            return response

        https_response = http_response

    class Response:
        def __init__(self, response):
            self._response = response
            self.code = response.status
            self.close = response.close

        def read(self, *amount):
            return self._response.read(*amount).decode()

        def info(self):
            headers = self._response.headers
            return types.SimpleNamespace(getheaders=lambda name: headers.get_all(name, []))

    def urlopen(url):
        return Response(urllib.request.build_opener(Answers).open(url))

    def binary_open(path, mode="r"):
        return builtins.open(path, "rb" if mode == "r" else mode)  # noqa: PTH123 -- as in lago

    truth = lago.utils.CommandStatus.__bool__
    lago.utils.CommandStatus.__bool__ = lambda status: bool(truth(status))

    plain = types.SimpleNamespace(urlopen=urlopen, urlretrieve=urllib.request.urlretrieve)
    requests = types.SimpleNamespace(request=plain)
    lago.templates.urllib = requests
    lago.utils.open = binary_open


def _list(repo):
    versions = {}
    for name in repo._dom["templates"]:
        template = repo.get_by_name(name)
        versions[name] = {
            "versions": sorted(template._versions),
            "newest": template.get_latest_version().name,
        }
    return {"name": repo.name, "templates": versions}


def _download(repo, store_path, template, version=None):
    from lago.templates import TemplateStore

    store = TemplateStore(store_path)
    wanted = repo.get_by_name(template).get_version(version)
    fresh = wanted not in store
    if fresh:
        store.download(wanted)
    return {
        "fresh": fresh,
        "version": wanted.name,
        "path": store.get_path(wanted),
        "hash": store.get_stored_hash(wanted),
        "metadata": store.get_stored_metadata(wanted),
    }


def main():
    sys.path.insert(0, sys.argv[1])
    if sys.version_info[0] > 2:  # noqa: UP036 -- Python 2 comes here too
        _python2_semantics()
    from lago.templates import TemplateRepository

    action, url = sys.argv[2:4]
    try:
        repo = TemplateRepository.from_url(url)
        done = _list(repo) if action == "list" else _download(repo, *sys.argv[4:])
    except Exception as error:  # noqa: BLE001 -- told to the test
        done = {"error": type(error).__name__ + ": " + str(error)}
    sys.stdout.write("\n" + json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
