# SPDX-License-Identifier: Apache-2.0
"""What the Fabric commands refuse, and what they leave alone. No network is started; programs are stood in for by scripts."""

from pathlib import Path

import pytest

from coordinator.processes import started
from identity.errors import Unavailable, UsageError
from ops.fabric import build, network, plan, processes
from ops.fabric.network import Wanted
from tests.ops.fabric_files import quiet, ready_plan, script, sleeping
from tests.ops.runs import Terminal


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder in the place of the one where Fabric is kept."""
    monkeypatch.setenv("FEDLEDGER_FABRIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def go_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str = "go1.25.0") -> None:
    """Put a Go on the PATH that answers with a version, and does this when it is to build."""
    script(
        tmp_path / "go" / "go", f'if [ "$1" = version ]; then echo "go version {version} linux/amd64"; exit; fi\n{text}'
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'go'}:/usr/bin:/bin")


@pytest.fixture
def programs(cache: Path) -> Path:
    """Programs of Fabric's names that all fail."""
    for name in build.PROGRAMS:
        script(build.folder() / "bin" / name, f"echo 'this {name} does nothing' >&2; exit 1")
    return build.folder() / "bin"


def refused(terminal: Terminal, *command: str) -> str:
    """What a command that is refused says."""
    terminal(*command, code=2)
    return terminal.err


# Go and the build


@pytest.mark.parametrize("command", [("up",), ("build",)])
def test_without_go_every_command_that_needs_it_says_how_to_get_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(terminal, "fabric", *command)
    assert "[go-missing]" in said
    assert "next: install Go 1.25 or later from go.dev/dl" in said
    assert not Path(".fabric").exists()


def test_an_old_go_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_that(tmp_path, monkeypatch, "", version="go1.24.9")
    with pytest.raises(UsageError, match=r"1\.25 or later is needed.*go1\.24\.9") as caught:
        build.programs(quiet)
    assert caught.value.code == "go-too-old"


def test_a_build_that_fails_shows_its_log_and_leaves_no_programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go_that(tmp_path, monkeypatch, "echo 'no such module' >&2; exit 1")
    with pytest.raises(Unavailable, match="no such module") as caught:
        build.programs(quiet)
    assert caught.value.code == "fabric-build"
    assert build.found() is None


def test_a_build_that_forgets_a_program_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_that(tmp_path, monkeypatch, 'mkdir -p "$4"; touch "$4/peer"; chmod +x "$4/peer"')
    with pytest.raises(Unavailable, match="could not be built"):
        build.programs(quiet)
    assert build.found() is None


def test_it_is_built_once_and_goes_on_after_an_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = " ".join(build.PROGRAMS)
    go_that(
        tmp_path,
        monkeypatch,
        f'echo built >> {tmp_path}/built; mkdir -p "$4"; for p in {made}; do : > "$4/$p"; chmod +x "$4/$p"; done',
    )
    (build.folder() / "bin.new").mkdir(parents=True)
    (build.folder() / "bin.new" / "half").touch()  # a build was killed
    assert build.programs(quiet) == build.programs(quiet) == build.folder() / "bin"
    assert sorted(one.name for one in build.programs(quiet).iterdir()) == sorted(build.PROGRAMS)
    assert (tmp_path / "built").read_text() == "built\n"


def test_go_is_held_to_the_recorded_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("FEDLEDGER_PASSPHRASE_FILE", "/secret")
    go_that(tmp_path, monkeypatch, f"env > {tmp_path}/environment; exit 1")
    with pytest.raises(Unavailable):
        build.programs(quiet)
    environment = (tmp_path / "environment").read_text()
    assert "GOFLAGS=-mod=mod -mod=readonly" in environment  # the last one counts
    assert "PASSPHRASE" not in environment


# The folder


@pytest.mark.usefixtures("programs")
def test_a_folder_that_holds_something_else_is_left_alone(terminal: Terminal) -> None:
    folder = Path("mine")
    folder.mkdir()
    (folder / "thesis").write_text("years of work")
    for command in (["up"], ["down", "--wipe"], ["status"]):
        assert "[fabric-folder]" in refused(terminal, "fabric", *command, "--dir", str(folder))
    assert [one.name for one in folder.iterdir()] == ["thesis"]


def test_no_network_is_no_error_for_down_and_one_for_status(terminal: Terminal) -> None:
    assert "nothing was running" in terminal("fabric", "down", "--wipe")
    assert "[fabric-missing]" in refused(terminal, "fabric", "status")


@pytest.mark.parametrize("data", [
    b"", b"{", b"[]", b"null", b'{"format": 1}', b'{"format": 99}', b"\xff", b'{"format": 1, "orderers": 3}',
])  # fmt: skip
def test_a_plan_that_is_damaged_or_of_another_version_is_refused_and_can_be_wiped(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / plan.FILE).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        plan.load(folder)
    assert caught.value.code == "fabric-format"
    assert "--wipe" in str(caught.value.next)
    network.down(folder, wipe=True, say=quiet)
    assert not folder.exists()


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(("changes", "wanted", "code"), [
    ({}, Wanted("bft"), "fabric-other-network"),
    ({}, Wanted(None, 3), "fabric-other-network"),
    ({"build": "1" * 64}, Wanted(), "fabric-other-version"),
    ({}, Wanted(), "fabric-other-contract"),
    ({"state": "half"}, Wanted(), "fabric-format"),
    ({"orderers": [{"name": "../../etc", "port": 1, "admin": 2, "operations": 3}]}, Wanted(), "fabric-format"),
    ({"organisations": [{"name": "../x", "port": 1, "chaincode": 2, "operations": 3, "joined": False}]}, Wanted(), "fabric-organisations"),
])  # fmt: skip
def test_a_network_that_is_not_the_one_that_is_meant(
    tmp_path: Path, changes: dict[str, object], wanted: Wanted, code: str
) -> None:
    folder = tmp_path / "network"
    ready_plan(folder, **changes)
    with pytest.raises(UsageError) as caught:
        network.up(folder, wanted, quiet)
    assert caught.value.code == code


@pytest.mark.usefixtures("programs")
def test_a_path_that_fabrics_command_lines_would_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        network.up(tmp_path / "a,b", Wanted(), quiet)
    assert caught.value.code == "fabric-folder"


def test_orderers_and_organisations_that_cannot_be(terminal: Terminal) -> None:
    assert "allowed: raft, raft3, bft" in refused(terminal, "fabric", "up", "--orderers", "kafka")
    assert "[fabric-organisations]" in refused(terminal, "fabric", "up", "--orgs", "0")
    assert "[fabric-organisations]" in refused(terminal, "fabric", "up", "--orgs", "10")


@pytest.mark.usefixtures("programs")
def test_a_half_written_network_is_made_anew_and_what_ran_of_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    ready_plan(folder, state=plan.MAKING)
    with sleeping(folder / "nodes" / "peer-coordinator") as place:
        process = processes.running(place)
        assert process
        with pytest.raises(
            Unavailable, match="making keys and certificates: cryptogen failed:\nthis cryptogen does nothing"
        ) as caught:
            network.up(folder, Wanted(), quiet)
        assert caught.value.code == "fabric-step"
        assert started(process.pid) is None
        assert not (folder / "nodes").exists()
    assert plan.load(folder) is not None  # so that the next attempt, or --wipe, knows what the folder is
