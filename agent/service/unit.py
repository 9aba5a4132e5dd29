"""PURE: the text of the systemd unit. What each line keeps out is said where it is not plain from its name."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

NAME = "lepta-agent.service"
WATCHDOG_S = 180
"""Longer than what the agent mends by itself: a stuck worker is ended after 60 s and replaced within 30 s."""
STOP_S = 45
"""Longer than `limits.drain` and the goodbye to the broker."""
START_S = 300
"""Enrolment, and loading every stored model (`limits.start` each, at once)."""
NICE_FOR_NORMAL = 20
"""LimitNICE= without a sign is the raw limit: 20 is nice 0, which lets a candidate come back from SCHED_IDLE."""


class Device(NamedTuple):
    """A device node that the models need, and the group that may use it ("" where everybody may)."""

    path: str
    group: str = ""


class Plan(NamedTuple):
    """Everything that the unit depends on."""

    command: tuple[str, ...]
    """The program and its first arguments; `run` and its options are added here."""
    config: str
    data: str
    program_folders: tuple[str, ...] = ()
    """Where the program and its interpreter lie."""
    devices: tuple[Device, ...] = ()
    memory_mb: int = 0
    """0: no limit."""
    serves: bool = False
    """Programs on the device ask it: it listens."""
    token: str = ""
    """File with the claim token of a machine that enrols at its first boot."""


def system_unit(plan: Plan) -> str:
    """For the system's manager: an account that exists only while it runs, and nothing but what an agent needs."""
    sections = [
        ("Unit", [*_UNIT, "Wants=network-online.target"]),
        (
            "Service",
            [*_service(plan), *_SANDBOX, *_home(plan.program_folders), *_devices(plan.devices), *_seccomp(plan.serves)],
        ),
        ("Install", ["WantedBy=multi-user.target"]),
    ]
    return _text(sections)


def user_unit(plan: Plan) -> str:
    """For a user's own manager: only what needs no privilege to set up."""
    service = [
        *_run(plan),
        *_LIFE,
        "NoNewPrivileges=yes",
        "UMask=0077",
        *_memory(plan.memory_mb),
        *_seccomp(plan.serves),
    ]
    return _text([("Unit", _UNIT), ("Service", service), ("Install", ["WantedBy=default.target"])])


def _service(plan: Plan) -> list[str]:
    token = [f"LoadCredential=token:{plan.token}", "SetCredential=token:gone"] if plan.token else []
    state = plan.data.removeprefix("/var/lib/")
    return [
        *_run(plan),
        *_LIFE,
        f"LimitNICE={NICE_FOR_NORMAL}",
        *_memory(plan.memory_mb),
        "# An account that exists only while the service runs; what root wrote into the folder becomes its own.",
        "DynamicUser=yes",
        "User=lepta-agent",
        f"StateDirectory={state}",
        "StateDirectoryMode=0700",
        *token,
    ]


def _run(plan: Plan) -> list[str]:
    token = ["--token-file", "${CREDENTIALS_DIRECTORY}/token"] if plan.token else []
    arguments = ["run", "--config", plan.config, "--data", plan.data]
    line = " ".join([*map(_quoted, [*plan.command, *arguments]), *token])
    return [f"ExecStart={line}"]


_UNIT = [
    "Description=Lepta edge agent",
    "Documentation=man:systemd.service(5)",
    "After=network-online.target time-sync.target",
    "# An edge device has nobody to start it again: never give up.",
    "StartLimitIntervalSec=0",
]
_LIFE = [
    "Type=notify",
    "NotifyAccess=main",
    f"WatchdogSec={WATCHDOG_S}",
    "Restart=always",
    "RestartSec=5",
    f"TimeoutStartSec={START_S}",
    f"TimeoutStopSec={STOP_S}",
    "# The agent lets its workers finish what they hold; what is left after TimeoutStopSec is killed with it.",
    "KillMode=mixed",
    "Environment=PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1",
    "TasksMax=256",
    "OOMPolicy=continue",
]
_SANDBOX = [
    "UMask=0077",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateUsers=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RemoveIPC=yes",
]


def _seccomp(serves: bool) -> list[str]:
    """The agent only calls out, unless programs on the device are to ask it."""
    if serves:
        doors = ["# `serve` in its configuration: it listens there.", "SystemCallFilter=~@privileged @resources"]
    else:
        doors = [
            "# The agent only calls out; a program that cannot listen opens no door.",
            "SystemCallFilter=~@privileged @resources listen accept accept4",
        ]
    return [
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "# AF_NETLINK: addresses of the interfaces, which name resolution asks for.",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        *doors,
        "# A candidate steps back to SCHED_IDLE, and comes forward again when it serves.",
        "SystemCallFilter=sched_setscheduler",
        "SystemCallErrorNumber=EPERM",
    ]


def _home(folders: tuple[str, ...]) -> list[str]:
    """Homes and temporary files are hidden; where the program lies there, they hold nothing else."""
    shown = " ".join(_quoted(folder) for folder in folders if hidden(folder))
    homes = "tmpfs" if any(map(in_home, folders)) else "yes"
    return [f"ProtectHome={homes}", *([f"BindReadOnlyPaths={shown}"] if shown else [])]


def _devices(devices: tuple[Device, ...]) -> list[str]:
    if not devices:
        return ["PrivateDevices=yes", "DevicePolicy=closed"]
    groups = sorted({device.group for device in devices if device.group})
    allowed = [f"DeviceAllow={device.path} rw" for device in devices]
    return ["DevicePolicy=closed", *allowed, *([f"SupplementaryGroups={' '.join(groups)}"] if groups else [])]


def _memory(megabytes: int) -> list[str]:
    return [f"MemoryMax={megabytes}M"] if megabytes else []


def in_home(folder: str) -> bool:
    """Is it hidden from services by ProtectHome=?"""
    return any(PurePosixPath(folder).is_relative_to(home) for home in ("/home", "/root", "/run/user"))


def hidden(folder: str) -> bool:
    """Is it hidden from this service, by ProtectHome= or PrivateTmp=?"""
    return in_home(folder) or any(PurePosixPath(folder).is_relative_to(top) for top in ("/tmp", "/var/tmp"))


def _quoted(word: str) -> str:
    """As systemd reads a word: specifiers, variables, blanks and quotes mean themselves."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character in escaped for character in " \t'\";") else escaped


def _text(sections: list[tuple[str, list[str]]]) -> str:
    return "\n\n".join("\n".join([f"[{name}]", *lines]) for name, lines in sections) + "\n"
