"""A simulator that is kept in a folder."""

import json
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.simulator import (
    Guest,
    RuntimeEvent,
    Simulator,
    create_simulator,
    load_simulator,
    store_recovery,
    store_update,
)

NOW = 1_790_000_000_000


def facts(simulator: Simulator) -> tuple[object, ...]:
    return (
        simulator.root_certificate,
        simulator.platform.pck.pem,
        simulator.platform.ppid,
        simulator.platform.piid,
        simulator.platform.fmspc,
        simulator.platform.svns,
        simulator.platform.attestation_key.private_numbers(),
        simulator.guest,
        simulator.releases,
    )


def test_what_was_made_is_loaded_again(tmp_path: Path) -> None:
    guest = Guest(compose=b"{}", events=(RuntimeEvent(name="mine", payload=b"\0\1"),))
    made = create_simulator(tmp_path / "simulator", guest=guest)
    assert facts(load_simulator(tmp_path / "simulator")) == facts(made)
    assert made.guest == guest


def test_its_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "simulator"
    create_simulator(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    names = ("authority.json", "guest.json", "machine-0001.json", "root.pem")
    assert modes == dict.fromkeys(names, 0o600)


def test_a_second_one_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "simulator"
    made = create_simulator(folder)
    with pytest.raises(InputError, match="a simulator already"):
        create_simulator(folder)
    assert facts(load_simulator(folder)) == facts(made)


def test_a_recovery_and_an_update_last(tmp_path: Path) -> None:
    folder = tmp_path / "simulator"
    made = create_simulator(folder)
    recovered = store_recovery(folder, now=NOW, effective_at=NOW + 1, advisories=("A-1",))
    assert facts(load_simulator(folder)) == facts(recovered)
    assert [release.evaluation_number for release in recovered.releases] == [20, 21]
    again = store_recovery(folder, now=NOW + 2, effective_at=NOW + 2, advisories=())
    assert facts(load_simulator(folder)) == facts(again)
    updated = store_update(folder)
    assert facts(load_simulator(folder)) == facts(updated)
    assert updated.platform.svns == again.releases[-1].levels[0].svns
    assert updated.platform.ppid == made.platform.ppid


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no simulator in it"):
        load_simulator(tmp_path)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "simulator"
    create_simulator(folder)
    (folder / "authority.json").chmod(0o644)
    with pytest.raises(InputError, match="lets other users in"):
        load_simulator(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("authority.json", "[]"),
        ("authority.json", "{}"),
        ("authority.json", "{"),
        ("guest.json", '{"mrtd": "zz"}'),
        ("machine-0001.json", '{"ppid": 1}'),
        ("recovery-0001.json", '{"published_at": "soon"}'),
    ],
)
def test_a_damaged_file_is_named_as_such(tmp_path: Path, name: str, content: str) -> None:
    folder = tmp_path / "simulator"
    create_simulator(folder)
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(InputError, match="not a simulator's"):
        load_simulator(folder)


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "simulator"
    create_simulator(folder)
    path = folder / "machine-0001.json"
    document = json.loads(path.read_text())
    document["attestation_key"] = (
        "-----BEGIN PRIVATE KEY-----\n"
        "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
        "-----END PRIVATE KEY-----\n"
    )
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="not of an elliptic curve"):
        load_simulator(folder)
