"""Signatures of webhooks, as MLflow makes them: ``v1,<base64 HMAC-SHA256 of "id.timestamp.body">``.

Source: Standard Webhooks, https://www.standardwebhooks.com; MLflow 3, ``X-MLflow-Signature``.
"""

import base64
import hashlib
import hmac

SCHEME = "v1"
TOLERANCE = 300.0
"""Seconds by which a webhook's clock may differ: an older one is a replay."""


def sign(secret: str, ident: str, timestamp: str, body: bytes) -> str:
    content = f"{ident}.{timestamp}.".encode() + body
    return f"{SCHEME},{base64.b64encode(hmac.digest(secret.encode(), content, hashlib.sha256)).decode()}"


def wrong(secret: str, ident: str, timestamp: str, body: bytes, signature: str, now: float) -> str:
    """Why the webhook is not to be believed; empty if it is."""
    if not (ident and timestamp and signature):
        return "not signed"
    try:
        late = abs(now - float(timestamp))
    except ValueError:
        return "its timestamp is no number"
    if not late <= TOLERANCE:
        return f"its timestamp is more than {TOLERANCE:g} s from now"
    expected = sign(secret, ident, timestamp, body)
    return "" if hmac.compare_digest(expected.encode(), signature.encode()) else "its signature is wrong"
