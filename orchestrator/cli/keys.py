"""One's own keys: `keys new|import|list|backup|restore`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import command
from orchestrator.cli.output import Document
from orchestrator.cli.secrets import (
    MAX_SECRET_BYTES,
    new_passphrase,
    open_keystore,
    passphrase,
    read_secret_file,
)
from orchestrator.cli.session import Session
from orchestrator.cli.values import read_input
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.keystore import IdentityInfo

app = typer.Typer(
    help="One's own keys: an account, and the secret that opens its results.",
    no_args_is_help=True,
)

SETTINGS = ("keys", "keys_unencrypted", "passphrase_file", "passphrase_fd")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What to call the identity.")]


def _document(info: "IdentityInfo") -> Document:
    from orchestrator.encoding import to_ss58

    return {
        "name": info.name,
        "account": to_ss58(info.account_id),
        "encrypted": info.is_encrypted,
    }


@command(app, "new", settings=SETTINGS, group="keys")
def new(
    session: Session,
    name: NameArgument,
    phrase_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="New file for the account's phrase, instead of the terminal."
        ),
    ] = None,
) -> None:
    """Make an account and a secret for results. The phrase restores only the account."""
    from orchestrator.keystore.private_files import write_new_file

    if phrase_file is not None and phrase_file.exists():
        raise InputError(f"phrase_file {phrase_file}: exists already; nothing is overwritten")
    made = open_keystore(session).new(name, passphrase=new_passphrase(session))
    if phrase_file is not None:
        write_new_file(phrase_file, made.mnemonic.encode("utf-8") + b"\n")
    elif sys.stderr.isatty():
        session.output.say(f"Write this phrase down; it is not shown again:\n\n{made.mnemonic}\n")
    else:
        session.output.say(
            "The phrase was not shown: no terminal, and no --phrase-file; only keys backup can save"
            " this account."
        )
    session.output.say("Make a backup (keys backup): without one, lost keys mean lost results.")
    session.output.result(_document(made.info))


@command(app, "import", settings=SETTINGS, group="keys")
def import_key(
    session: Session,
    name: NameArgument,
    phrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with a mnemonic, perhaps //path.")
    ] = None,
    polkadot_js: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file exported by polkadot-js.")
    ] = None,
    export_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Passphrase of the polkadot-js file.")
    ] = None,
    development: Annotated[
        str | None,
        typer.Option(metavar="//NAME", help="A public development account, such as //Alice."),
    ] = None,
) -> None:
    """Take an account in, with a new secret for its results."""
    if sum(given is not None for given in (phrase_file, polkadot_js, development)) != 1:
        raise InputError("give exactly one of --phrase-file, --polkadot-js, --development")
    keystore = open_keystore(session)
    if development is not None:
        info = keystore.import_development_account(
            name, development, passphrase=new_passphrase(session)
        )
    elif phrase_file is not None:
        phrase = read_secret_file("phrase_file", phrase_file)
        info = keystore.import_mnemonic(name, phrase, passphrase=new_passphrase(session))
    else:
        if polkadot_js is None or export_passphrase_file is None:
            raise InputError("export_passphrase_file: needed with --polkadot-js")
        info = keystore.import_polkadot_js(
            name,
            read_input("polkadot_js", polkadot_js, max_bytes=MAX_SECRET_BYTES),
            export_passphrase=read_secret_file("export_passphrase_file", export_passphrase_file),
            passphrase=new_passphrase(session),
        )
    session.output.result(_document(info))


@command(app, "list", settings=("keys", "keys_unencrypted"), group="keys")
def list_keys(session: Session) -> None:
    """List the identities in the folder of keys; no passphrase is needed."""
    keystore = open_keystore(session)
    for name, why in keystore.unusable().items():
        session.output.say(f"{name} is no usable identity: {why}")
    session.output.rows("keys", [_document(info) for info in keystore.identities()])


@command(app, "backup", settings=SETTINGS, group="keys")
def backup(
    session: Session,
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file to write.")],
    backup_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Passphrase of the backup itself.")
    ] = None,
) -> None:
    """Write an identity to one encrypted file, which opens every result it ever got."""
    keystore = open_keystore(session)
    is_encrypted = keystore.info(name).is_encrypted
    keystore.backup(
        name,
        file,
        passphrase=passphrase(session) if is_encrypted else "",
        backup_passphrase=_backup_passphrase(session, backup_passphrase_file),
    )
    session.output.result({"name": name, "written": str(file)})


@command(app, "restore", settings=SETTINGS, group="keys")
def restore(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    name: Annotated[str | None, typer.Option(help="Another name than the backup's.")] = None,
    backup_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Passphrase of the backup itself.")
    ] = None,
) -> None:
    """Take the identity of a backup into the folder of keys."""
    info = open_keystore(session).restore(
        file,
        backup_passphrase=_backup_passphrase(session, backup_passphrase_file),
        passphrase=new_passphrase(session),
        name=name,
    )
    session.output.result(_document(info))


def _backup_passphrase(session: Session, path: Path | None) -> str:
    """The backup's own passphrase; without a file of its own it is that of the keys."""
    if path is not None:
        return read_secret_file("backup_passphrase_file", path)
    return passphrase(session)
