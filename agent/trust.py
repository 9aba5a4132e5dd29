"""TLS to one controller: its CA is trusted and no other, names are checked, and times as far as we know the time.

What the controller's CA signed may lie in our future only if our clock is behind: such a certificate is not refused,
it tells the time (see `agent.clock`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import socket
import ssl
import time
from pathlib import Path

from agent.clock import Clock
from agent.contract import wire
from agent.contract.signing import PrivateKey
from agent.enroll import EnrollError

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python gives no name."""
_NOT_YET_VALID, _EXPIRED = 9, 10
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


class Untrusted(ConnectionError):
    """TLS did not come about: why, and what to do."""


class Door:
    """Makes connections that only a server of our controller can take part in.

    `ca` empty: a server that the system's trust store vouches for. `own` names the files of our certificate and key;
    they are read at each connection, so a renewed one counts at once.
    """

    def __init__(self, ca: str, clock: Clock, own: tuple[Path, Path] | None = None) -> None:
        self._ca = ca
        self._clock = clock
        self._own = own

    def context(self) -> ssl.SSLContext:
        """Raises OSError or ssl.SSLError where our certificate or key cannot be read."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._ca:
            context.load_verify_locations(cadata=self._ca)
        else:
            context.load_default_certs()
        if self._own is not None:
            context.load_cert_chain(*self._own)
        if self._clock.wrong:
            context.verify_flags |= _NO_CHECK_TIME
        return context

    def connect(self, address: tuple[str, int], timeout: float) -> ssl.SSLSocket:
        """Resolve, connect and shake hands; `timeout` in seconds for each step. Raises Untrusted or another OSError."""
        context = self.context()
        try:
            try:
                return self._connect(address, timeout, context)
            except ssl.SSLCertVerificationError as error:
                if error.verify_code != _NOT_YET_VALID:
                    raise
                context.verify_flags |= _NO_CHECK_TIME
                return self._connect(address, timeout, context)
        except ssl.SSLError as error:
            raise Untrusted(explain(error)) from error

    def _connect(self, address: tuple[str, int], timeout: float, context: ssl.SSLContext) -> ssl.SSLSocket:
        host, _ = address
        plain = socket.create_connection(address, timeout)
        try:
            wire.no_delay(plain)
            secured = context.wrap_socket(plain, server_hostname=host.partition("%")[0])
        except (OSError, ValueError):
            plain.close()
            raise
        valid_from = (secured.getpeercert() or {}).get("notBefore")
        if isinstance(valid_from, str):
            self._clock.at_least(ssl.cert_time_to_seconds(valid_from))
        return secured


def unverified(address: tuple[str, int], timeout: float) -> ssl.SSLSocket:
    """TLS with whoever answers: only to ask for a CA, which is then compared with what the user was given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(address, timeout)
    try:
        return context.wrap_socket(plain, server_hostname=address[0].partition("%")[0])
    except ssl.SSLError as error:
        plain.close()
        raise Untrusted(explain(error)) from error
    except OSError:
        plain.close()
        raise


def explain(error: ssl.SSLError) -> str:
    """Why the other side was not trusted, and what to do."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
            return "it speaks no TLS; is its address http:// and not https://?"
        return f"TLS failed: {error.reason or error}"
    if error.verify_code == _EXPIRED:
        here = time.strftime("%Y-%m-%d", time.gmtime())
        return f"its certificate has expired: the clock here says {here}; if that is right, restart `lepta up`"
    return f"it is not the controller that this device trusts ({error.verify_message}); was its CA made anew?"


def fingerprint(ca: str) -> str:
    """SHA-256 of the first certificate in PEM, in hex. Raises EnrollError if there is none."""
    found = _PEM.search(ca)
    try:
        if found is not None:
            return hashlib.sha256(base64.b64decode("".join(found[1].split()), validate=True)).hexdigest()
    except binascii.Error:
        pass
    raise EnrollError("the controller told a CA that is no certificate")


def plain_fingerprint(told: str) -> str:
    """A fingerprint as people write it (colons, capitals, `sha256:` before it), in plain hex. Raises EnrollError."""
    digits = told.strip().lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise EnrollError(
            f"--ca-fingerprint: {told[:80]!r} is not 64 hex digits; `lepta device add` shows the right one"
        )
    return digits


def certification_request(key: PrivateKey) -> str:
    """A request (PEM) for a certificate. The controller chooses the name in it."""
    # Imported for this one request: megabytes that a serving agent never needs.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lepta-agent")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key.signer, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
