"""The controller's CA: what it signs is what the field's strictest checker takes, and names come from nobody else."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from agent.contract.signing import PrivateKey
from agent.contract.topics import TopicError
from controller.errors import Internal, UserError
from controller.identity.authority import Authority

NOW = 1_800_000_000.0
DAY = 86400.0


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, common: str = "anything") -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def _common_name(pem: str) -> str:
    found = x509.load_pem_x509_certificate(pem.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value)


def test_a_ca_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = Authority.load_or_create(tmp_path / "ca", NOW)
    second = Authority.load_or_create(tmp_path / "ca", NOW + DAY)
    assert (first.pem, first.fingerprint) == (second.pem, second.fingerprint)
    assert len(first.fingerprint) == 64
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "ca").iterdir())


def test_a_damaged_or_foreign_ca_is_refused_and_kept(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "a", NOW)
    Authority.load_or_create(tmp_path / "b", NOW)
    (tmp_path / "a" / "ca.pem").write_bytes((tmp_path / "b" / "ca.pem").read_bytes())
    with pytest.raises(Internal, match="two CAs"):
        Authority.load_or_create(tmp_path / "a", NOW)
    (tmp_path / "a" / "ca.pem").write_text("garbage")
    with pytest.raises(Internal, match="cannot be used"):
        Authority.load_or_create(tmp_path / "a", NOW)
    assert (tmp_path / "a" / "ca.pem").read_text() == "garbage"


def test_the_servers_certificate_passes_a_strict_check_for_each_of_its_names(tmp_path: Path) -> None:
    ca = Authority.load_or_create(tmp_path, NOW)
    files = ca.server(["localhost", "lepta.example", "127.0.0.1", "::1"], NOW, 30 * DAY)
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    store = Store([x509.load_pem_x509_certificate(ca.pem.encode())])
    at = x509.load_pem_x509_certificate(ca.pem.encode()).not_valid_before_utc.replace(tzinfo=None)
    verifier = PolicyBuilder().store(store).time(at.replace(day=at.day + 1))
    assert verifier.build_server_verifier(x509.DNSName("lepta.example")).verify(leaf, [])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)


def test_the_servers_certificate_is_renewed_in_time_and_for_new_names_with_the_same_key(tmp_path: Path) -> None:
    ca = Authority.load_or_create(tmp_path, NOW)

    def certificate(names: list[str], now: float) -> bytes:
        return ca.server(names, now, 30 * DAY).certificate.read_bytes()

    first = certificate(["a"], NOW)
    key = (tmp_path / "server.key").read_bytes()
    assert certificate(["a"], NOW + 19 * DAY) == first
    assert certificate(["a"], NOW + 21 * DAY) != first
    assert certificate(["a", "b"], NOW) != first
    assert (tmp_path / "server.key").read_bytes() == key


def test_a_device_gets_the_name_that_the_controller_chose(tmp_path: Path) -> None:
    ca = Authority.load_or_create(tmp_path, NOW)
    issued = ca.sign_device(_request(PrivateKey.generate().signer, "somebody-else"), "pi-1", NOW, 90 * DAY)
    assert _common_name(issued.pem) == "pi-1"
    assert issued.not_before < NOW < issued.not_after == NOW + 90 * DAY


@pytest.mark.parametrize("garbage", ["", "no request", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_no_request_is_refused(tmp_path: Path, garbage: str) -> None:
    with pytest.raises(UserError, match="not a certification request"):
        Authority.load_or_create(tmp_path, NOW).sign_device(garbage, "pi-1", NOW, DAY)


def test_a_request_with_another_kind_of_key_or_a_foreign_signature_is_refused(tmp_path: Path) -> None:
    ca = Authority.load_or_create(tmp_path, NOW)
    with pytest.raises(UserError, match="another kind"):
        ca.sign_device(_request(rsa.generate_private_key(65537, 2048)), "pi-1", NOW, DAY)
    mine, yours = (_request(PrivateKey.generate().signer) for _ in range(2))
    der = bytearray(x509.load_pem_x509_csr(mine.encode()).public_bytes(serialization.Encoding.DER))
    other = x509.load_pem_x509_csr(yours.encode()).public_bytes(serialization.Encoding.DER)
    der[-20:] = other[-20:]
    forged = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    with pytest.raises(UserError, match=r"was not signed by its key|not a certification request"):
        ca.sign_device(forged, "pi-1", NOW, DAY)


def test_the_revocation_list_names_what_was_revoked(tmp_path: Path) -> None:
    ca = Authority.load_or_create(tmp_path, NOW)
    issued = ca.sign_device(_request(PrivateKey.generate().signer), "pi-1", NOW, DAY)
    crl = x509.load_pem_x509_crl(ca.revocations([issued.serial], NOW).encode())
    assert crl.get_revoked_certificate_by_serial_number(int(issued.serial, 16)) is not None
    assert crl.get_revoked_certificate_by_serial_number(7) is None


@pytest.mark.parametrize("name", ["Lepta-boot-1", "+", "#", "a/b", "$SYS", ""])
def test_no_certificate_is_made_for_what_is_no_devices_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(TopicError):
        Authority.load_or_create(tmp_path, NOW).sign_device(_request(PrivateKey.generate().signer), name, NOW, DAY)
