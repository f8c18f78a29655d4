"""Judge the Perl expressions of ``edit``: only those that cannot run code are harmless.

virt-builder does not run them in the image: it downloads the file and gives the expression to
``eval`` in a Perl process **on the host** (libguestfs-common edit/file-edit.c). A spec that may
say anything there may read and run anything here. So only expressions that cannot run code are
allowed: substitutions, transliterations and assignments of plain strings, with a condition.
"""

import re
from functools import lru_cache

# Not `'` (turns quoting rules round), `@ $ ?` (an escaped delimiter loses its backslash before
# variables and `(?{ }` are looked for), `=` and `:` (`s=>` and `s::` are not substitutions).
_DELIMITER = r"([/|#,!%~+])"
_BODY = r"((?:\\.|(?!\1)[^\\])*)\1"
_SUBSTITUTION = re.compile(f"s{_DELIMITER}{_BODY}{_BODY}([a-z]*)", re.DOTALL)
_TRANSLITERATION = re.compile(f"(?:tr|y){_DELIMITER}{_BODY}{_BODY}[cds]*", re.DOTALL)
_CONDITION = re.compile(r"\s+(?:if|unless)\s+!?(/)((?:\\.|[^\\/])*)/([a-z]*)", re.DOTALL)
_ASSIGNMENT = re.compile(r"\$_\s*\.?=\s*")
_TERM = re.compile(r"(\$_)(?!\w|\s*[-\[{(])|'(?:\\.|[^'\\])*'|\"((?:\\.|[^\"\\])*)\"", re.DOTALL)
_JOIN = re.compile(r"\s*[.+]\s*")
_END = re.compile(r"\s*(?:;\s*|\Z)")

# e evaluates the replacement, r and x change how the rest is read.
_FLAGS = re.compile(r"[gimsoadlun]*")
# \c takes the next character whatever it is; $ at the end of a group or alternative is no variable.
_SAFE_PATTERN = re.compile(r"(?:\\[^c]|\$(?=[)|]|\Z)|\((?!\?\??[{p]|\*)|[^\\$@(])*", re.DOTALL)
_SAFE_STRING = re.compile(r"(?:\\[^c]|\$(?:\d++|&|\{\d+\})(?![\[{\-])|[^\\$@])*", re.DOTALL)

REFUSAL = (
    "edit runs its Perl on the build host, so only s/old/new/, tr/a/b/ and $_ = 'text' are "
    "allowed, with an optional if /pattern/, and with @ and $ escaped; for more use run-command "
    "perl, which runs in the image"
)


@lru_cache(maxsize=4096)
def is_harmless(expression: str) -> bool:
    """Return whether an expression can change its line and do nothing else."""
    position = len(expression) - len(expression.lstrip())
    while position < len(expression):
        after = _statement(expression, position)
        if after is None:
            return False
        condition = _CONDITION.match(expression, after)
        if condition and _pattern(condition[2], condition[3]):
            after = condition.end()
        end = _END.match(expression, after)
        if not end or end.end() == position:
            return False
        position = end.end()
    return bool(expression.strip())


def _statement(text: str, position: int) -> int | None:
    """Return the end of the statement that starts at ``position``; None if it is not allowed."""
    if match := _SUBSTITUTION.match(text, position):
        _, pattern, replacement, flags = match.groups()
        return match.end() if _pattern(pattern, flags) and _string(replacement) else None
    if match := _TRANSLITERATION.match(text, position):
        return match.end()
    if match := _ASSIGNMENT.match(text, position):
        return _terms(text, match.end())
    return None


def _terms(text: str, position: int) -> int | None:
    while True:
        term = _TERM.match(text, position)
        if term is None or (term[2] is not None and not _string(term[2])):
            return None
        join = _JOIN.match(text, term.end())
        if join is None:
            return term.end()
        position = join.end()


def _pattern(body: str, flags: str) -> bool:
    return bool(_SAFE_PATTERN.fullmatch(body) and _FLAGS.fullmatch(flags))


def _string(body: str) -> bool:
    return bool(_SAFE_STRING.fullmatch(body))
