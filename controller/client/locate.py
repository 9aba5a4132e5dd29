"""Where the controller is and which token opens it, from the environment or a data folder on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from controller.errors import NotFound, UserError

URL, TOKEN_FILE, CA_FILE, DATA = "LEPTA_URL", "LEPTA_TOKEN_FILE", "LEPTA_CA_FILE", "LEPTA_DATA"
NO_CONTROLLER = "no controller is running"
START_ONE = "start one with `lepta up`"


class Place(NamedTuple):
    url: str
    """Without a slash at its end."""
    token_file: Path
    ca: Path | None = None
    """The only CA (PEM) that the controller's certificate may come from; None: those that this machine trusts."""

    def token(self) -> str:
        """The API token; raises UserError where it cannot be read."""
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"the API token cannot be read: {error}", f"set {TOKEN_FILE} to a file that holds it"
            ) from error


class _Written(msgspec.Struct, frozen=True):
    """What `lepta up` leaves in its data folder while it runs."""

    url: str
    pid: int = 0
    ca: str = ""


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """$LEPTA_DATA, else ~/.local/share/lepta."""
    return Path(environment.get(DATA) or "~/.local/share/lepta").expanduser()


def locate(environment: Mapping[str, str] = os.environ) -> Place:
    """$LEPTA_URL with $LEPTA_TOKEN_FILE and $LEPTA_CA_FILE, else the controller of the data folder.

    Raises NotFound or UserError.
    """
    folder = data_folder(environment)
    local = _read(folder / "controller.json")
    url = (environment.get(URL) or "").rstrip("/")
    token_file, ca = _path(environment.get(TOKEN_FILE)), _path(environment.get(CA_FILE))
    if local is not None and url in ("", local.url.rstrip("/")):
        return Place(local.url.rstrip("/"), token_file or folder / "api-token", ca or _path(local.ca))
    if not url:
        raise NotFound(NO_CONTROLLER, f"{START_ONE}, or set {URL} and {TOKEN_FILE} to use one elsewhere")
    if token_file is not None:
        return Place(url, token_file, ca)
    # The local token is a secret of the local controller; another one must not see it.
    raise UserError(
        f"{URL} names a controller elsewhere, and no token for it is known", f"set {TOKEN_FILE} to its token's file"
    )


def in_folder(folder: Path) -> Place:
    """The controller that runs on `folder`; raises NotFound if none has written its address there."""
    return locate({DATA: str(folder)})


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _read(path: Path) -> _Written | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Written)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"the data folder cannot be read: {error}", f"set {DATA} to your own") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}", "start the controller again with `lepta up`") from error
