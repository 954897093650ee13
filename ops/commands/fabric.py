# SPDX-License-Identifier: Apache-2.0
"""``fedledger fabric``: a Hyperledger Fabric network on this machine, and the package for one that exists."""

import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from chaincode.files import write_whole
from identity.errors import UsageError
from ops import output
from ops.fabric import build as builds
from ops.fabric import joining, processes, status
from ops.fabric import network as networks
from ops.fabric import package as packages
from ops.fabric import upgrade as upgrades
from ops.fabric.existing import Network, opened
from ops.fabric.network import Wanted
from ops.fabric.plan import CONSENSUS, default_names
from ops.options import JsonOption, LimitOption

app = typer.Typer(add_completion=False, no_args_is_help=True)

DEFAULT_FOLDER = ".fabric"

FolderOption = Annotated[str, typer.Option("--dir", metavar="FOLDER", help="The network's folder.")]


@app.callback()
def fabric() -> None:
    """Run a Hyperledger Fabric network here, as a ledger."""


class Telling:
    """Says what is being done and waited for, each line behind the seconds since the beginning."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, text: str) -> None:
        output.note(f"  {self.seconds:5.1f} s  {text}")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


@app.command()
def up(
    folder: FolderOption = DEFAULT_FOLDER,
    orderers: Annotated[
        str | None,
        typer.Option(metavar="|".join(CONSENSUS), help="How the orderers agree: raft is one, raft3 three, bft four."),
    ] = None,
    orgs: Annotated[int | None, typer.Option(metavar="N", help="How many organisations; 3 without it.")] = None,
    contract: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="For trials: run the contract of another installation.")
    ] = None,
    chaincode_tls: Annotated[
        bool, typer.Option("--chaincode-tls", help="A new network's peers reach their chaincode servers over TLS.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the network, or what of it does not run; the first time it is made."""
    if orderers is not None and orderers not in CONSENSUS:
        raise UsageError(
            "fabric-orderers", f"No kind of orderers is called {orderers[:20]!r}.\nallowed: {', '.join(CONSENSUS)}"
        )
    if orgs is not None:
        default_names(orgs)
    say = Telling()
    wanted = Wanted(orderers, orgs, str(Path(contract).absolute()) if contract else "", chaincode_tls)
    network = networks.up(Path(folder), wanted, say)
    if as_json:
        output.emit_json("fabric", _facts(network) | {"seconds": round(say.seconds, 1)})
        return
    say("ready")
    output.facts(_facts(network).items())
    output.line("Try next:", "bold")
    output.next_command(
        "run", "demo", "--ledger", "fabric", *(() if folder == DEFAULT_FOLDER else ("--fabric-dir", folder))
    )
    output.next_command("fabric", "status", *_dir(folder))
    output.next_command("fabric", "down", *_dir(folder))


def _dir(folder: str) -> tuple[str, ...]:
    return () if folder == DEFAULT_FOLDER else ("--dir", folder)


def _facts(network: Network) -> dict[str, Any]:
    plan = network.plan
    return {
        "folder": str(network.folder),
        "profile": str(network.folder / "profile.json"),
        "orderers": f"{len(plan.orderers)} ({plan.consensus})",
        "organisations": [one.name for one in plan.organisations],
        "contract": plan.contract.source,
        "package": plan.contract.package,
    }


@app.command()
def down(
    folder: FolderOption = DEFAULT_FOLDER,
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove the folder as well, with the ledger in it.")] = False,
) -> None:
    """End the processes of the network, and no others; its state stays."""
    was_there = Path(folder).exists()
    ended = networks.down(Path(folder), wipe=wipe, say=Telling())
    output.line(f"ended: {', '.join(ended)}" if ended else f"nothing was running in {folder}")
    if wipe:
        output.line(f"removed: {folder}" if was_there else f"there was no {folder}")


@app.command(name="status")
def status_(folder: FolderOption = DEFAULT_FOLDER, as_json: JsonOption = False) -> int:
    """Show each node, the channel's height and the contract."""
    found = status.look(opened(Path(folder)))
    if as_json:
        output.emit_json("fabric", found.as_json())
    else:
        output.facts(found.facts())
        output.line()
        output.table(status.COLUMNS, found.rows())
        if found.down:
            output.note(f"Not running: {', '.join(found.down)}. To start what is missing:")
            output.next_command("fabric", "up", *_dir(folder))
    return 3 if found.down else 0


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A node, as `status` names it.")],
    folder: FolderOption = DEFAULT_FOLDER, limit: LimitOption = 50,
) -> None:  # fmt: skip
    """Show the end of a node's log."""
    node = opened(Path(folder)).node(name)
    for text in processes.tail(node.log, limit or 1 << 20):
        output.line(text)
    output.note(f"the log: {node.log}")


@app.command()
def demo() -> int:
    """Run the demonstration on a network of its own, kill a peer in mid-run, audit the blocks, stop the network."""
    demonstrate: Callable[[], int] = import_module("ops.fabric_demo").demonstrate
    return demonstrate()


@app.command()
def build() -> None:
    """Build Hyperledger Fabric's programs, which `up` does by itself."""
    say = Telling()
    output.line(builds.programs(say))


@app.command(name="package")
def package_(
    file: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="Where the package is written.")],
    tls: Annotated[
        bool, typer.Option("--tls/--no-tls", help="Whether peers and chaincode servers talk over TLS.")
    ] = True,
) -> None:
    """Write the chaincode package for an existing network, with a page of steps for its operators."""
    source = packages.source_digest()
    data = packages.make(source, tls=tls)
    path = Path(file)
    page = path.with_name(f"{path.name}.md")
    write_whole(path, data)
    write_whole(page, packages.steps(path.name, data, source, tls=tls).encode())
    output.facts(
        [("package", file), ("its id", packages.package_id(data)), ("the contract's source", source), ("steps", page)]
    )


@app.command()
def upgrade(
    folder: FolderOption = DEFAULT_FOLDER,
    contract: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="For trials: the contract of another installation.")
    ] = None,
) -> None:
    """Have the organisations approve this program's contract, and run it on the channel."""
    say = Telling()
    network = upgrades.upgrade(Path(folder), str(Path(contract).absolute()) if contract else "", say)
    say("ready")
    output.facts(_facts(network).items())


@app.command(name="add-org")
def add_org(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The organisation's name, such as hospitals-3.")],
    folder: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Have another organisation join the running channel."""
    say = Telling()
    network = joining.add_organisation(Path(folder), name, say)
    say("ready")
    output.facts(_facts(network).items())


@app.command(name="second-reader")
def second_reader(
    folder: FolderOption = DEFAULT_FOLDER,
    profile: Annotated[
        str | None, typer.Option(metavar="FILE", help="The connection profile of another network.")
    ] = None,
    organisation: Annotated[
        str | None, typer.Option(help="As a client of which organisation; the profile's first with a client's key.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare with another client, fabric-sdk-py: both read the channel, and it makes one transaction."""
    reader = import_module("ops.fabric.second_reader")  # which needs the packages of a Fabric client
    profiles = import_module("chaincode.ledgers.fabric.profile")
    read = profiles.load_profile(profile or opened(Path(folder)).folder / "profile.json")
    ours = [one.name for one in read.organisations if one.ours] or [one.name for one in read.organisations]
    found = reader.compare(read, organisation or next(iter(ours), ""), Telling())
    if as_json:
        output.emit_json(
            "fabric", {"agree": all(one.agree for one in found), "compared": [asdict(one) for one in found]}
        )
    else:
        rows = [(one.what, "same" if one.agree else "DIFFERENT", one.gateway[:24]) for one in found]
        output.table(("read by both", "bytes", "as"), rows)
    reader.require_agreement(found)
