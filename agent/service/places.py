"""Where everything of an installed agent lies: for the system, for one user, or staged below another root."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NamedTuple

from agent.service.unit import NAME


class Places(NamedTuple):
    """`root` stands before every path where an image is built; the files themselves name paths without it."""

    unit: Path
    enabled: Path
    """The link that starts the unit with the machine, or with the user's session."""
    config: Path
    token: Path
    """A fleet's claim token, for the first start."""
    data: Path
    log: Path
    """Written only where no service manager collects what the agent says."""
    root: Path = Path("/")
    user: bool = False
    """In a user's home, run by the user's own manager."""

    def on_disk(self, path: Path) -> Path:
        """Where a path of the installed system lies now."""
        return self.root / path.relative_to("/")

    @property
    def staged(self) -> bool:
        return self.root != Path("/")


def system(root: Path = Path("/"), *, config: Path | None = None, data: Path | None = None) -> Places:
    """For all of the machine."""
    units, etc = Path("/etc/systemd/system"), Path("/etc/lepta")
    return Places(
        unit=units / NAME,
        enabled=units / "multi-user.target.wants" / NAME,
        config=config or etc / "agent.toml",
        token=etc / "token",
        data=data or Path("/var/lib/lepta"),
        log=Path("/var/log/lepta-agent.log"),
        root=root,
    )


def user(home: Path, *, config: Path | None = None, data: Path | None = None, root: Path = Path("/")) -> Places:
    """For one user, without privileges."""
    units, kept = home / ".config/systemd/user", data or home / ".local/share/lepta-agent"
    return Places(
        unit=units / NAME,
        enabled=units / "default.target.wants" / NAME,
        config=config or home / ".config/lepta/agent.toml",
        token=home / ".config/lepta/token",
        data=kept,
        log=home / ".local/state/lepta-agent.log",
        root=root,
        user=True,
    )


def of_invoker(name: str) -> Path | None:
    """The data folder that `lepta-agent join` made for the user who called sudo; None where there is none."""
    try:
        home = pwd.getpwnam(name).pw_dir if name else ""
    except KeyError:
        return None
    return Path(home) / ".local/share/lepta-agent" if home else None


def here(
    *, for_user: bool = False, root: Path = Path("/"), config: Path | None = None, data: Path | None = None
) -> Places:
    """What this process may manage: the machine's for root, else the user's."""
    absolute = [Path(os.path.abspath(path)) if path is not None else None for path in (config, data)]
    if for_user or (os.geteuid() != 0 and root == Path("/")):
        return user(Path.home(), config=absolute[0], data=absolute[1], root=root)
    return system(root, config=absolute[0], data=absolute[1])
