"""How requests to Aliyun and to Tencent Cloud are signed."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from hashlib import sha256


def acs3(key_id: str, secret: str, *, host: str, action: str, version: str, query: str, at_s: int,
         nonce: str) -> dict[str, str]:  # fmt: skip
    """The headers of a POST to `/` without a body, by ACS3-HMAC-SHA256.

    Args:
        query: sorted by name, and percent-encoded as RFC 3986 has it.
        nonce: never used before.

    Source: Alibaba Cloud SDK, request syntax and signature method V3.
    """
    body_hash = sha256(b"").hexdigest()
    headers = {
        "host": host, "x-acs-action": action, "x-acs-content-sha256": body_hash,
        "x-acs-date": datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce, "x-acs-version": version,
    }  # fmt: skip
    names = ";".join(headers)
    canonical = _canonical(query, headers, body_hash)
    signature = hmac.digest(secret.encode(), f"ACS3-HMAC-SHA256\n{canonical}".encode(), "sha256").hex()
    authorization = f"ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={names},Signature={signature}"
    return {**headers, "Authorization": authorization}


def tc3(key_id: str, secret: str, *, service: str, host: str, action: str, version: str, region: str, body: bytes,
        at_s: int) -> dict[str, str]:  # fmt: skip
    """The headers of a POST of JSON to `/`, by TC3-HMAC-SHA256.

    Source: Tencent Cloud API, signature method v3.
    """
    headers = {"content-type": "application/json; charset=utf-8", "host": host, "x-tc-action": action.lower()}
    names = ";".join(headers)
    day = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
    scope = f"{day}/{service}/tc3_request"
    canonical = _canonical("", headers, sha256(body).hexdigest())
    key = f"TC3{secret}".encode()
    for part in (day, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, f"TC3-HMAC-SHA256\n{at_s}\n{scope}\n{canonical}".encode(), "sha256").hex()
    authorization = f"TC3-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {
        "Content-Type": headers["content-type"], "Host": host, "X-TC-Action": action, "X-TC-Version": version,
        "X-TC-Region": region, "X-TC-Timestamp": str(at_s), "Authorization": authorization,
    }  # fmt: skip


def _canonical(query: str, headers: dict[str, str], body_hash: str) -> str:
    """SHA-256 of a POST to `/` as both want it written; `headers` in the order of the alphabet."""
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    return sha256(f"POST\n/\n{query}\n{lines}\n{';'.join(headers)}\n{body_hash}".encode()).hexdigest()
