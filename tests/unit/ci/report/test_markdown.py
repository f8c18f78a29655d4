"""Text of strangers, rendered by GitHub's own Markdown library."""

import re

import cmarkgfm
from cmarkgfm.cmark import Options
from hypothesis import given
from hypothesis import strategies as st

from lago_images.ci.report import markdown
from tests.support.ci import HOSTILE

ACTIVE = re.compile(r"<(a|img|script|h\d|input|em|strong|del|ul|ol|hr|blockquote)\b")
NASTY = (
    st.text(alphabet=st.sampled_from("|<>`*_[]()#@!&;:/\\~-=+ \n\r\ta.wh1\u200b\u202e\"'${}"))
    | st.text()
)


def rendered(text: str) -> str:
    """As GitHub does it, with raw HTML let through, which is the harder case."""
    return cmarkgfm.github_flavored_markdown_to_html(text, options=Options.CMARK_OPT_UNSAFE)


def cells(text: str) -> int:
    return len(re.findall(r"<t[dh]>", rendered(text)))


def check_in_table(text: str) -> None:
    shown = rendered("\n".join(markdown.table(("a", "b"), [(markdown.code(text), "end")])))
    assert len(re.findall(r"<td>", shown)) == 2
    assert len(re.findall(r"<tr>", shown)) == 2
    assert not ACTIVE.search(shown)
    assert shown.count("<code>") == 1
    assert not re.search(r"@\w", shown)


def test_hostile_text_does_not_leave_its_cell():
    check_in_table(HOSTILE)


@given(NASTY)
def test_no_text_leaves_its_cell(text):
    check_in_table(text)


@given(st.lists(NASTY))
def test_no_lines_leave_their_code_block(lines):
    shown = rendered("before\n\n" + markdown.block(tuple(lines)) + "\n\n**after**\n")
    inside, _, after = shown.partition("</pre>")
    assert not ACTIVE.search(inside)
    assert "<strong>after</strong>" in after
    assert after.count("</pre>") == 0


def test_escaped_text_is_displayed_as_written():
    shown = rendered(markdown.code("g++ 4:12.2.0-3 | libfoo_1~rc1 <x@y>"))
    assert "g++ 4:12.2.0-3 | libfoo_1~rc1 &lt;x@\u200by&gt;" in shown


def test_long_text_is_truncated():
    assert len(re.sub(r"&#\d+;", "x", markdown.inert("a" * 500, limit=100))) == 100
