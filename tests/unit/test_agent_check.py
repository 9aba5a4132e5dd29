"""What an agent takes and what it refuses, for which cause; which clock may refuse; whose signature counts."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from agent.blobs import Blobs
from agent.check import check_manifest, usable_runtimes
from agent.clock import RELEASED, Clock
from agent.contract import root
from agent.contract.manifest import CAUSES, ManifestError, Target
from agent.contract.root import Root, RootError, seal_root
from agent.contract.signing import PrivateKey
from agent.disk import RealDisk
from agent.roots import Roots
from tests.attacks import (
    ARTIFACT,
    DEVICE,
    FLOOR,
    KEY,
    NOW,
    SOUND,
    Altered,
    Attack,
    alterations,
    attacks,
    chunk_of,
    sealed,
    taken,
    verdict,
    wanted,
)

OLD, ROOT, NEXT_ROOT, FRESH = (PrivateKey.generate() for _ in range(4))
DAY = 86400.0


def test_a_sound_manifest_is_taken() -> None:
    assert verdict(Attack(sealed(SOUND), wanted(SOUND), "")) == ""


def test_every_forged_stale_or_misdirected_manifest_is_refused_for_its_cause() -> None:
    for attack in attacks(190, seed=int(os.environ.get("LEPTA_TEST_SEED", "1"))):
        assert verdict(attack) == attack.cause
        assert attack.cause in CAUSES


def test_every_altered_artifact_is_refused_by_its_digest_or_its_size(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, RealDisk(), 8 * len(ARTIFACT))
    for altered in alterations(60, seed=int(os.environ.get("LEPTA_TEST_SEED", "1"))):
        assert taken(altered, blobs) == altered.cause
        assert blobs.held() == []


def test_the_artifact_that_is_signed_is_taken(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, RealDisk(), 8 * len(ARTIFACT))
    assert taken(Altered(0, len(ARTIFACT), chunk_of(ARTIFACT, 0), ""), blobs) == ""


def test_each_single_byte_of_an_envelope_that_is_changed_makes_it_refused() -> None:
    envelope = sealed(SOUND)
    for at in range(len(envelope)):
        for flip in (0x01, 0x20, 0x80):
            changed = envelope[:at] + bytes([envelope[at] ^ flip]) + envelope[at + 1 :]
            assert verdict(Attack(changed, wanted(SOUND), "")) in ("key", "changed"), (at, flip)


def test_what_served_here_is_taken_again_after_it_expired_and_nothing_else_is() -> None:
    stale = msgspec.structs.replace(SOUND, expires_at=NOW - 1)
    check_manifest(stale, DEVICE, FLOOR, anew=False)
    with pytest.raises(ManifestError, match="set this device's clock"):
        check_manifest(stale, DEVICE, FLOOR)
    with pytest.raises(ManifestError, match="floor"):
        check_manifest(msgspec.structs.replace(stale, sequence=1), DEVICE, FLOOR, anew=False)


@pytest.mark.parametrize(
    ("target", "takes"),
    [
        (Target(), True),
        (Target(("pi-7",)), True),
        (Target(("pi-8",)), False),
        (Target((), ("site=north",)), True),
        (Target((), ("site=south",)), False),
        (Target(("pi-8",), ("site=north",)), True),
        (Target((), ("site",)), False),
    ],
)
def test_a_target_takes_the_devices_it_names_and_those_in_its_groups(target: Target, takes: bool) -> None:
    assert target.takes("pi-7", {"site": "north"}) is takes


@pytest.mark.parametrize(
    ("installed", "least", "usable"),
    [("2.3.0", "2.1", True), ("2.1", "2.1.0", False), ("2.10", "2.9", True), ("1.9.9", "2", False), ("", "2", True)],
)
def test_a_runtime_that_is_too_old_is_not_used(installed: str, least: str, usable: bool) -> None:
    manifest = msgspec.structs.replace(SOUND, runtime_minimum={"ai-edge-litert": least})
    assert bool(usable_runtimes(manifest, {"ai-edge-litert": installed})) is usable


@pytest.mark.parametrize(
    ("wall", "until", "expires", "refused"),
    [
        (RELEASED + 10 * DAY, 0.0, RELEASED + 5 * DAY, True),
        (RELEASED + 10 * DAY, 0.0, RELEASED + 20 * DAY, False),
        (0.0, 0.0, RELEASED + 5 * DAY, False),  # at 1970: nobody knows whether it expired
        (0.0, 0.0, RELEASED - 5 * DAY, True),  # and this has certainly passed
        (RELEASED + 400 * DAY, RELEASED + 90 * DAY, RELEASED + 200 * DAY, False),  # a clock past our certificate's end
    ],
)
def test_a_clock_that_cannot_be_right_refuses_nothing(wall: float, until: float, expires: float, refused: bool) -> None:
    clock = Clock(None, until=until, wall=lambda: wall, monotonic=lambda: 0.0)
    assert clock.has_passed(expires) is refused


def _root(version: int, root_key: PrivateKey, *release: PrivateKey) -> Root:
    return Root(version=version, root_key=root_key.public.pem(), release_keys=tuple(k.public.pem() for k in release))


def _ids(roots: Roots) -> set[str]:
    return {key.id for key in roots.release_keys()}


FIRST = seal_root(_root(1, ROOT, OLD, FRESH), [OLD, ROOT]).decode()
SECOND = seal_root(_root(2, NEXT_ROOT, FRESH), [ROOT, NEXT_ROOT]).decode()


def _roots(folder: Path) -> Roots:
    return Roots(folder, RealDisk(), OLD.public.pem())


def test_a_device_of_before_follows_from_its_release_key_to_the_newest_root_and_remembers_it(tmp_path: Path) -> None:
    roots = _roots(tmp_path)
    assert (roots.version, _ids(roots)) == (0, {OLD.public.id})
    assert roots.offer([FIRST, SECOND])
    assert (roots.version, _ids(roots)) == (2, {FRESH.public.id})
    again = _roots(tmp_path)
    assert (again.version, _ids(again)) == (2, {FRESH.public.id})


def test_what_a_former_key_signed_serves_on_and_is_not_installed_anew(tmp_path: Path) -> None:
    roots = _roots(tmp_path)
    roots.offer([FIRST, SECOND])
    for each in (roots, _roots(tmp_path)):
        assert OLD.public.id not in _ids(each)
        assert OLD.public.id in {key.id for key in each.every_key()}


def test_roots_that_are_known_already_change_nothing(tmp_path: Path) -> None:
    roots = _roots(tmp_path)
    roots.offer([FIRST])
    assert not roots.offer([FIRST])
    assert roots.offer([FIRST, SECOND])
    assert not roots.offer([FIRST])
    assert roots.version == 2


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        (seal_root(_root(1, ROOT, FRESH), [ROOT]), "the root key that is trusted now"),
        (seal_root(_root(1, ROOT, FRESH), [OLD]), "its own root key"),
        (seal_root(_root(2, ROOT, FRESH), [OLD, ROOT]), "does not follow version 0"),
        (seal_root(_root(1, ROOT), [OLD, ROOT]), "not a root document"),
        (b"{}", "not a root document"),
        (b"x" * 20_000, "not a root document"),
    ],
)
def test_a_root_that_the_trusted_one_did_not_sign_or_that_skips_one_is_refused(
    forged: bytes, said: str, tmp_path: Path
) -> None:
    roots = _roots(tmp_path)
    with pytest.raises(RootError, match=said):
        roots.offer([forged.decode()])
    assert (roots.version, _ids(roots)) == (0, {OLD.public.id})
    assert not list(tmp_path.iterdir())


def test_a_good_root_before_a_bad_one_counts(tmp_path: Path) -> None:
    roots = _roots(tmp_path)
    with pytest.raises(RootError):
        roots.offer([FIRST, seal_root(_root(2, NEXT_ROOT, FRESH), [NEXT_ROOT]).decode()])
    assert roots.version == 1


def test_a_device_that_joins_after_a_rotation_begins_with_the_root_it_is_told(tmp_path: Path) -> None:
    roots = Roots(tmp_path, RealDisk(), FRESH.public.pem(), FIRST)
    assert (roots.version, _ids(roots)) == (1, {OLD.public.id, FRESH.public.id})
    assert roots.offer([SECOND])


def test_a_damaged_root_file_costs_no_more_than_what_it_held(tmp_path: Path) -> None:
    _roots(tmp_path).offer([FIRST])
    (tmp_path / "root.json").write_text("{")
    roots = _roots(tmp_path)
    assert roots.version == 0
    assert roots.offer([FIRST, SECOND])


def test_reading_a_root_checks_that_it_signed_itself() -> None:
    assert root.read(FIRST.encode()).version == 1
    with pytest.raises(RootError):
        root.read(seal_root(_root(1, ROOT, FRESH), [KEY]))
