"""May the version that is desired be installed here? What the swap hears, from what lies on disk and from the clock."""

from __future__ import annotations

from agent import swap
from agent.blobs import BlobError
from agent.check import check_manifest, open_manifest
from agent.contract.manifest import ManifestError
from agent.contract.messages import DesiredModel
from agent.contract.signing import SignatureError
from agent.ground import Ground

_CURABLE = ("expired", "key")


def verdict(target: DesiredModel, ground: Ground) -> swap.Verified | swap.Refused | swap.Broken:
    """Its manifest lies in the store. Signature, floor, expiry, target, profile, runtime, operators, sizes."""
    pointers = ground.keeper.current
    floor = pointers.minimum_sequence.get(target.model, 0)
    anew = not pointers.of(target.model).served(target)
    try:
        manifest = open_manifest(ground.blobs.read(target.manifest), ground.standing.roots.release_keys(), target)
        check_manifest(manifest, ground.standing.device(), floor, anew=anew)
    except (BlobError, OSError) as error:
        return swap.Broken("device", str(error))
    except (SignatureError, ManifestError) as error:
        return swap.Refused("us", str(error), error.cause)
    return swap.Verified(manifest)


def still_refused(target: DesiredModel, ground: Ground) -> bool:
    """It was refused before; would it be again? Only what lies outside it can have changed: a clock that was wrong was
    set, or keys that were not known here count now."""
    cause = ground.keeper.current.of(target.model).refused_cause
    if cause not in _CURABLE:
        return True
    now = verdict(target, ground)
    return isinstance(now, swap.Refused) and now.cause == cause
