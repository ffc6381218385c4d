"""Person keys: `workspace/u:<userId>` or `workspace/a:<anonymousId>`, and the ids that are none."""

from __future__ import annotations

import re

LONGEST_ID = 256  # characters of a userId or anonymousId, after which it is a mistake (a token, a page)

# Values that programs send when they have no id. One of them as a real id would pull all its visitors into one
# person. Compared in lower case. Source: PostHog's list of illegal distinct ids, and what SDKs send.
BLOCKED_IDS = frozenset(
    {
        "", "0", "-1", "null", "none", "nil", "undefined", "nan", "true", "false", "[object object]", "{}", "[]",
        "anonymous", "anonymousid", "anonymous_id", "guest", "userid", "user_id", "id", "distinct_id", "distinctid",
        "not_authenticated", "unknown", "email", "n/a",
        "00000000-0000-0000-0000-000000000000",
    }
)  # fmt: skip

WORKSPACE_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")


def is_blocked(identifier: str) -> bool:
    """Whether an id is a placeholder that stands for no person.

    >>> is_blocked("undefined"), is_blocked(" NULL "), is_blocked("u-17")
    (True, True, False)
    """
    return identifier.strip().lower() in BLOCKED_IDS


def user_key(workspace: str, user_id: str) -> str:
    return f"{workspace}/u:{user_id}"


def anonymous_key(workspace: str, anonymous_id: str) -> str:
    return f"{workspace}/a:{anonymous_id}"


def is_user(key: str) -> bool:
    """Whether a person key is that of a user, not of an anonymous visitor."""
    return key.partition("/")[2].startswith("u:")


def split_key(key: str) -> tuple[str, str, str]:
    """Workspace, kind (`u` or `a`) and id of a person key.

    >>> split_key("shop/u:42")
    ('shop', 'u', '42')

    Raises:
        ValueError: the text is not a person key.
    """
    workspace, slash, rest = key.partition("/")
    if not slash or rest[:2] not in ("u:", "a:") or len(rest) < 3 or not WORKSPACE_PATTERN.match(workspace):
        raise ValueError(f"{key!r} is not a person key; it is written workspace/u:USER_ID or workspace/a:ANONYMOUS_ID")
    return workspace, rest[0], rest[2:]
