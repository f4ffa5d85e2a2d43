"""The hash that closes every stored record. With a secret, write access to the store is not enough to forge one."""

import hashlib
import hmac

DIGEST_BYTES = hashlib.sha256().digest_size


class Seal:
    """SHA-256, which detects damage, or with a secret HMAC-SHA-256, which also detects forgery."""

    def __init__(self, secret: str | None = None) -> None:
        self._secret = None if secret is None else secret.encode()

    @property
    def keyed(self) -> bool:
        return self._secret is not None

    def digest(self, body: bytes | memoryview) -> bytes:
        if self._secret is None:
            return hashlib.sha256(body).digest()
        return hmac.digest(self._secret, body, "sha256")

    def matches(self, body: bytes | memoryview, digest: bytes | memoryview) -> bool:
        """True if `digest` is the body's, compared in constant time."""
        return hmac.compare_digest(self.digest(body), digest)


PLAIN = Seal()
