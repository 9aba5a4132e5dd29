"""`lepta release`: signing versions with a key that may lie on another machine, and changing that key."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common, terms
from controller.errors import UserError

if TYPE_CHECKING:
    from agent.contract.root import Root
    from agent.contract.signing import PrivateKey, PublicKey
    from controller.signing_desk import Paper, ReleaseKeys

app = typer.Typer(help="Signing versions: the release key may lie on another machine.", no_args_is_help=True)
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The file of `lepta release pending --out`.")]
_Out = Annotated[Path, typer.Option(help="File to write.")]


@app.command()
def key(path: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes.")]) -> None:
    """Make a release or root key, on the machine that is to keep it. FILE.pub is for the others."""
    from agent.contract.signing import PrivateKey, write_secret

    public = path.with_suffix(".pub")
    if path.exists() or public.exists() or path == public:
        raise UserError(f"{path if path.exists() else public} exists already", "name another file")
    made = PrivateKey.generate()
    write_secret(path, made.pem())
    public.write_text(made.public.pem(), encoding="ascii")
    common.screen().line(f"{path} is the key, keep it to yourself; {public} is what others may know")


@app.command()
def pending(
    out: Annotated[Path | None, typer.Option(help="Write what waits to this file, to sign it elsewhere.")] = None,
) -> None:
    """Versions that wait for the release key's signature."""
    import msgspec

    with common.connect() as client:
        paper = client.pending()
    screen = common.screen()
    if not paper.waiting:
        screen.line("nothing waits for a signature")
        return
    screen.table(("model", "version", "profile"), [(w.model, str(w.version), w.profile) for w in paper.waiting])
    if out is None:
        screen.note("next: lepta release pending --out FILE")
        return
    common.write_json(out, msgspec.to_builtins(paper))
    screen.note(f"next, where the key is: lepta release sign {out} --key KEY")


@app.command()
def sign(
    file: _File,
    key: Annotated[Path, typer.Option(help="The release key's file.")],
    expires: terms.Expires = None,
    device: terms.Device = None,
    group: terms.Group = None,
    runtime: terms.Runtime = None,
    watch: terms.Watch = None,
    shadow: terms.Shadow = None,
) -> None:
    """Sign what waits in FILE, in place. Needs no controller and no network."""
    import msgspec

    from controller import signing_desk

    paper, secret = _paper(file), _private(key)
    told = terms.terms_of(expires, device, group, runtime, watch, shadow)
    signed = tuple(signing_desk.sign(waiting, secret, told) for waiting in paper.waiting)
    common.write_json(file, msgspec.to_builtins(signing_desk.Paper(signed=(*paper.signed, *signed))))
    screen = common.screen()
    for each in signed:
        screen.line(f"signed: {each.model} version {each.version} for {each.profile}")
    screen.note(f"next, where the controller is: lepta release push {file}")


@app.command()
def push(file: _File) -> None:
    """Bring signatures back to the controller: what they are for can then roll out."""
    paper = _paper(file)
    if not paper.signed:
        raise UserError(f"nothing in {file} is signed", f"where the key is: lepta release sign {file} --key KEY")
    with common.connect() as client:
        taken = client.push_signatures(paper).signed
    screen = common.screen()
    for model, version in sorted({(each.model, each.version) for each in taken}):
        screen.line(f"{model} version {version} is signed")
        screen.note(f"next: lepta rollout start {model} --version {version}")


@app.command()
def floor(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[int, typer.Argument(help="The oldest version that may still be installed.", min=1)],
) -> None:
    """Shut out older versions for good, for security. What serves goes on serving."""
    with common.connect() as client:
        raised = client.raise_floor(model, version)
    common.screen().line(f"{model}: nothing older than version {version} is installed (sequence {raised.sequence})")


@app.command()
def keys(
    out: Annotated[Path | None, typer.Option(help="Write it to this file, for `lepta release root`.")] = None,
) -> None:
    """Which keys may sign versions, and whether the controller holds one of them."""
    import msgspec

    with common.connect() as client:
        found = client.release_keys()
    _show(found)
    if out is not None:
        common.write_json(out, msgspec.to_builtins(found))


@app.command()
def root(
    current: Annotated[Path, typer.Argument(help="The file of `lepta release keys --out`.")],
    sign_with: Annotated[list[Path], typer.Option("--sign", help="Today's root key, and the new one if it changes.")],
    release_key: Annotated[list[Path], typer.Option(help="Public key that may sign from now on; several times.")],
    out: _Out,
    root_key: Annotated[Path | None, typer.Option(help="Public root key from now on; default: as it is.")] = None,
) -> None:
    """Say which release keys count from now on. Before the first root document the release key is the root key.

    Needs no controller and no network. Keys that are not named do not count any more; what they signed and what serves
    goes on serving.
    """
    from agent.contract import root as contract

    today = _current(current)
    following = contract.Root(
        version=today.version + 1,
        root_key=today.root_key if root_key is None else _public(root_key).pem(),
        release_keys=tuple(_public(path).pem() for path in release_key),
        issued_at=int(time.time()),
    )
    envelope = contract.seal_root(following, [_private(path) for path in sign_with])
    try:
        contract.follow(today, envelope)
    except contract.RootError as error:
        raise UserError(f"nobody would follow this root document: {error}", "give the root key with --sign") from error
    out.write_bytes(envelope)
    screen = common.screen()
    screen.line(f"{out}: root version {following.version}, {len(release_key)} release keys")
    screen.note(f"next, where the controller is: lepta release trust {out}")


@app.command()
def trust(file: Annotated[Path, typer.Argument(help="What `lepta release root` wrote.")]) -> None:
    """Give the controller and every device the next root document."""
    envelope = _read(file).decode(errors="replace")
    with common.connect() as client:
        _show(client.trust(envelope))


@app.command()
def bundle(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    out: _Out,
    version: Annotated[str, typer.Option(help="A number, latest or serving.")] = "latest",
    profile: Annotated[str | None, typer.Option(help="Default: the only one.")] = None,
) -> None:
    """An artifact as a folder whose signature the `model_signing` tool checks."""
    from controller.bundle import FILES, SIGNATURE

    folder = common.new_folder(out)
    with common.connect() as client:
        fits = [a for a in client.version(model, version).artifacts if profile in (None, a.profile)]
        if len(fits) != 1:
            raise UserError(f"{len(fits)} artifacts of {model} {version} fit", "--profile NAME, see lepta model show")
        [artifact] = fits
        if not artifact.bundle:
            raise UserError(f"{model} {version} for {artifact.profile} has no signature", "lepta release pending")
        for role, name in FILES.items():
            client.get_file(artifact.digests[role], folder / name)
        client.get_file(artifact.bundle, folder / SIGNATURE)
    common.screen().line(f"model_signing verify key {folder} --signature {folder / SIGNATURE} --public_key release.pub")


def _show(found: ReleaseKeys) -> None:
    from agent.contract.signing import PublicKey

    screen = common.screen()
    screen.line(f"root version {found.version}" if found.version else "no root document yet: this key is root as well")
    screen.table((), [("release key", PublicKey.from_pem(pem).id) for pem in found.release_keys])
    screen.table((), [("root key", PublicKey.from_pem(found.root_key).id)])
    if not found.signs_here:
        screen.line("The controller holds none of them: versions are signed elsewhere, see `lepta release pending`.")


def _paper(file: Path) -> Paper:
    from controller.signing_desk import read_paper

    return read_paper(_read(file))


def _current(file: Path) -> Root:
    import msgspec

    from agent.contract.root import Root

    try:
        return msgspec.json.decode(_read(file), type=Root)
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{file} is not from lepta release keys: {error}", "lepta release keys --out FILE") from error


def _private(path: Path) -> PrivateKey:
    from agent.contract.signing import PrivateKey, SignatureError

    try:
        _read(path)  # A missing key is not made here.
        return PrivateKey.load_or_create(path)
    except SignatureError as error:
        raise UserError(str(error), "lepta release key FILE") from error


def _public(path: Path) -> PublicKey:
    from agent.contract.signing import PublicKey, SignatureError

    try:
        return PublicKey.from_pem(_read(path).decode(errors="replace"))
    except SignatureError as error:
        raise UserError(f"{path}: {error}", "give the .pub file") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
