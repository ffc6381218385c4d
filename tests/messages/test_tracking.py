"""Links of a mail lead through the collector; everything else of it stays as it is."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.messages.links import CLICK, OPEN, PREFERENCES, UNSUBSCRIBE, Mailed, Tokens
from sinks.messages.tracking import LONGEST_ADDRESS, Links

US = "https://go.shop.test"
ADA = Mailed("0123456789abcdef" * 2, "shop/u:ada", "welcome", "offers", "email")
TOKENS = Tokens([bytes(32)])
LINKS = Links(US, TOKENS)
OURS = re.compile(rf"{US}/l/c/([A-Za-z0-9._-]+)")
PIXEL = re.compile(rf'<img src="{US}/l/o/([^"]+)\.gif" width="1" height="1" alt="" border="0">')


def targets(html: str) -> list[tuple[int, str]]:
    """The number and the target of each link that is tracked."""
    clicks = [TOKENS.read(CLICK, token) for token in OURS.findall(html)]
    return [(click.number, click.url) for click in clicks]


def without_tracking(html: str) -> str:
    """The HTML as it was, for targets that need no escaping."""
    plain = OURS.sub(lambda found: TOKENS.read(CLICK, found[1]).url, html)
    return PIXEL.sub("", plain)


def test_links_are_tracked_in_their_order_and_a_picture_ends_the_body() -> None:
    html = '<html><body>\n<p><a class="x" href="https://shop.test/1">1</a></p>\n<AREA HREF=\'http://shop.test/2\'>' \
           "<a href=https://shop.test/3>3</a>\n</body></html>\n"  # fmt: skip

    tracked = LINKS.tracked(html, ADA)

    assert targets(tracked) == [(1, "https://shop.test/1"), (2, "http://shop.test/2"), (3, "https://shop.test/3")]
    assert without_tracking(tracked) == html
    (picture,) = PIXEL.findall(tracked)
    assert TOKENS.read(OPEN, picture) == ADA
    assert tracked.endswith(".gif\" width=\"1\" height=\"1\" alt=\"\" border=\"0\"></body></html>\n")


def test_a_click_knows_its_message() -> None:
    (token,) = OURS.findall(LINKS.tracked('<a href="https://shop.test">', ADA))

    said = TOKENS.read(CLICK, token)

    assert (said.message, said.person, said.template, said.topic, said.channel) == (
        ADA.message, ADA.person, ADA.template, ADA.topic, ADA.channel)  # fmt: skip


@pytest.mark.parametrize(
    "tag",
    [
        '<a href="mailto:a@shop.test">', '<a href="#top">', '<a href="tel:+431">', '<a href="/shop">', '<a href="">',
        '<a href="//shop.test">', '<a href>', '<a name="https://shop.test">', '<a data-href="https://shop.test">',
        '<a href="https://shop.test" data-untracked>', '<a DATA-UNTRACKED="" href="https://shop.test">',
        '<a href="javascript:alert(1)//https://shop.test">', '<a href="https://">', '<a href="https:///x">',
        '<a href="https://ann@shop.test/">', r'<a href="https://shop.test\@evil.test">', '<a href="https://[x">',
        '<a href="https://shop.test/a b">', '<a href="https://shop.test/a&#10;b">', '<a href="https://商店.test">',
        '<a href="#" href="https://shop.test">', f'<a href="https://shop.test/{"x" * LONGEST_ADDRESS}">',
        '<link href="https://shop.test">', '<img src="https://shop.test">', '<base href="https://shop.test">',
        '<!-- <a href="https://shop.test"> -->', '<script><a href="https://shop.test"></script>',
        '<style><a href="https://shop.test"></style>', '<p title="<a href=https://shop.test>">',
        '<title><a href="https://shop.test"></title>', '<textarea></texta><a href="https://shop.test">',
        '<a href="https://shop.test', '<a href="https://shop.test>', "< a href='https://shop.test'>",
        f'<a href="{US}/l/u/x">',
    ],
)  # fmt: skip
def test_all_else_stays_as_it_is(tag: str) -> None:
    tracked = LINKS.tracked(f"<body>{tag}", ADA)

    assert targets(tracked) == []
    assert PIXEL.sub("", tracked) == f"<body>{tag}"


@pytest.mark.parametrize(
    ("href", "target"),
    [
        ('"https://shop.test/?a=1&amp;b=2"', "https://shop.test/?a=1&b=2"),
        ('"https://shop.test/?a=1&copy=2&reg=3"', "https://shop.test/?a=1&copy=2&reg=3"),
        ('"https://shop.test/?q=&quot;x&#34;&#x27;"', "https://shop.test/?q=\"x\"'"),
        ('" \n https://shop.test/ "', "https://shop.test/"),
        ('"HTTPS://Shop.test/A%20b;c|d"', "HTTPS://Shop.test/A%20b;c|d"),
        ('"https://shop.test/数据?q=é#ü"', "https://shop.test/%E6%95%B0%E6%8D%AE?q=%C3%A9#%C3%BC"),
        ('"&#104;ttps://shop.test"', "https://shop.test"),
        ('"https://evil.test/<script>"', "https://evil.test/<script>"),
        ("https://shop.test/a/ x", "https://shop.test/a/"),
        ("'https://shop.test/\"x'", 'https://shop.test/"x'),
    ],
)
def test_a_target_is_what_a_browser_would_open(href: str, target: str) -> None:
    html = f"<a\n href = {href}>x</a>"

    tracked = LINKS.tracked(html, ADA)

    assert targets(tracked) == [(1, target)]
    assert not set(OURS.search(tracked)[0]) & set("\"'<> &")  # whatever quotes it stands in, it cannot leave them


@pytest.mark.parametrize(
    "html",
    ["<![foo[ x ]]><a href=https://shop.test>", "<![CDATA[ x ]]><a href=https://shop.test>",
     "<!--[if mso]><a href=https://no.test><![endif]--><![if !mso]><a href=https://shop.test><![endif]>",
     "<a href=https://shop.test></a></body></html></body>\n<p>more", "<?x ?><a/href=https://shop.test>",
     "<!--x--!><a href=https://shop.test><textarea></TEXTAREA\n><p title='<a href=https://no.test>'>",
     "<p></body></html><a href=https://shop.test>", "<!doctype html><a href=https://shop.test><a href='", "\r\n<b>\r<a\r\nhref=https://shop.test\r\n>"],
)  # fmt: skip
def test_broken_html_keeps_its_bytes(html: str) -> None:
    tracked = LINKS.tracked(html, ADA)

    assert targets(tracked) == [(1, "https://shop.test")]
    assert without_tracking(tracked) == html


pieces = st.sampled_from(["<a href=https://s.test/1>", "<", ">", "a ", "<a ", "href=", "https://s.test/1", '"', "'",
                          "</body>", "<!--", "-->", "<![", "&amp;", "\n", "<script>", "</script>", "=", "/", "</html>",
                          "<body", "x", "é", "\0"])  # fmt: skip


@given(st.lists(pieces, max_size=40).map("".join))
def test_whatever_the_html_is_only_links_and_the_end_change(html: str) -> None:
    tracked = LINKS.tracked(html, ADA)

    assert len(PIXEL.findall(tracked)) == bool(html)
    if "é" not in html and "&" not in html:
        assert without_tracking(tracked) == html


@pytest.mark.parametrize("hostile", ["<a ", "<!--", "<a b='", "<![", "<a href=", " ", "<textarea></texta", "="])
def test_a_large_page_that_is_broken_takes_no_time_that_anybody_notices(hostile: str) -> None:
    html = "<p>x</p><a href=https://shop.test>" * 1_000 + "<a" + hostile * 100_000
    begun_s = time.process_time()

    tracked = LINKS.tracked(html, ADA)

    assert len(targets(tracked)) == 1_000
    assert time.process_time() - begun_s < 5  # what looks at each sign anew for each other one takes minutes


def test_a_trap_is_there_for_machines_alone() -> None:
    tracked = LINKS.tracked("<body><a href=https://shop.test></body>", ADA, has_trap=True)

    assert targets(tracked) == [(1, "https://shop.test"), (0, "")]
    assert '" style="display:none" aria-hidden="true" tabindex="-1"></a><img ' in tracked
    assert LINKS.tracked("", ADA, has_trap=True) == ""


def test_the_ways_out_are_tracked_by_nobody() -> None:
    leave, choose = LINKS.unsubscribe_url(ADA), LINKS.preferences_url(ADA)

    assert TOKENS.read(UNSUBSCRIBE, leave.removeprefix(f"{US}/l/u/")) == ADA
    assert TOKENS.read(PREFERENCES, choose.removeprefix(f"{US}/l/p/")) == ADA
    assert targets(LINKS.tracked(f'<a href="{leave}"></a><a href="{choose}"></a>', ADA)) == []


def test_a_receipt_has_nothing_to_leave() -> None:
    assert LINKS.unsubscribe_url(Mailed("0" * 32, "shop/u:ada", "receipt", "", "email")) == ""
