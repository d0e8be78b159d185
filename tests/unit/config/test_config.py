"""Settings: order of the sources, origins, unknown names, bounds, the sample file."""

import os
import tomllib
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.config import OriginKind, load_settings, sample
from orchestrator.config.settings import declared_settings, variable
from orchestrator.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(config.PREFIX):
            monkeypatch.delenv(name)


def _file(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_every_setting_has_its_default_when_nothing_is_given() -> None:
    loaded = load_settings()

    assert loaded.settings.worker_listen == "127.0.0.1:9301"
    assert loaded.settings.chain is None
    assert {origin.kind for origin in loaded.origins.values()} == {OriginKind.DEFAULT}
    assert str(loaded.origins["chain"]) == "default"


def test_the_default_folders_are_below_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")

    assert load_settings().settings.keys == Path("/somewhere/.phala-jobs/keys")
    assert config.default_file() == Path("/somewhere/.phala-jobs/config.toml")


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path, 'chain = "a"\ncontract = "b"\naccount = "c"\n')
    monkeypatch.setenv("PHALA_JOBS_CHAIN", "from-environment")
    monkeypatch.setenv("PHALA_JOBS_CONTRACT", "from-environment")

    loaded = load_settings(options={"chain": "from-option"}, file=path)

    settings = loaded.settings
    assert (settings.chain, settings.contract, settings.account) == (
        "from-option",
        "from-environment",
        "c",
    )
    assert str(loaded.origins["chain"]) == "option --chain"
    assert str(loaded.origins["contract"]) == "environment PHALA_JOBS_CONTRACT"
    assert str(loaded.origins["account"]) == f"file {path} account"


def test_a_section_of_the_file_holds_the_settings_of_its_role(tmp_path: Path) -> None:
    path = _file(tmp_path, '[worker]\nlisten = "[::1]:1"\n[orchestrator]\nworkers = [1, 2]\n')

    loaded = load_settings(file=path)

    assert loaded.settings.worker_listen == "[::1]:1"
    assert loaded.settings.orchestrator_workers == (1, 2)
    assert loaded.origins["worker_listen"].place == f"{path} worker.listen"


def test_a_list_in_a_variable_is_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALA_JOBS_BLOB_SOURCES", "http://a, http://b,")
    monkeypatch.setenv("PHALA_JOBS_ORCHESTRATOR_WORKERS", "3,4")

    settings = load_settings().settings

    assert settings.blob_sources == ("http://a", "http://b")
    assert settings.orchestrator_workers == (3, 4)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALA_JOBS_CHAIN", "")

    loaded = load_settings()

    assert loaded.settings.chain is None
    assert loaded.origins["chain"].kind is OriginKind.DEFAULT


PROTECTING = {
    "contract",
    "max_fee_per_call",
    "max_spend_per_day",
    "accepted_worker_keys",
    "policy",
    "collateral",
    "worker_tasks",
    "orchestrator_workers",
    "registrar_workers",
}


@pytest.mark.parametrize("name", sorted(PROTECTING))
@pytest.mark.parametrize("value", ["", " ", ","])
def test_an_empty_variable_of_what_protects_is_not_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """`PHALA_JOBS_POLICY=$unset` must not seal without a policy, nor hide that of the file."""
    assert {
        n for n, one in declared_settings().items() if one.described.is_protecting
    } == PROTECTING
    monkeypatch.setenv(variable(name), value)

    with pytest.raises(
        ConfigError, match=f"{variable(name)}.*is empty; without it more is allowed"
    ):
        load_settings()


@pytest.mark.parametrize("text", ['policy = ""', "accepted_worker_keys = []", 'contract = " "'])
def test_nor_is_an_empty_value_in_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="is empty; without it more is allowed"):
        load_settings(file=_file(tmp_path, text + "\n"))


@pytest.mark.parametrize("value", ["", Path()])
def test_nor_is_an_empty_option(value: object) -> None:
    with pytest.raises(ConfigError, match=r"option --policy\): is empty"):
        load_settings(options={"policy": value})


def test_what_a_stronger_level_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALA_JOBS_POLICY", "")

    assert load_settings(options={"policy": Path("own")}).settings.policy == Path("own")


def test_a_relative_path_in_the_file_is_beside_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, 'chain = "local:c.db"\nkeys = "k"\nclient = "~/c"\n')

    settings = load_settings(file=path).settings

    assert settings.chain == f"local:{tmp_path / 'c.db'}"
    assert settings.keys == tmp_path / "k"
    assert settings.client == Path("~/c").expanduser()


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = _file(tmp_path, '[worker]\nlissten = "x"\n')

    with pytest.raises(ConfigError, match=r"worker\.lissten.*did you mean worker\.listen\?"):
        load_settings(file=path)


def test_an_unknown_key_that_is_like_no_other_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qqq is no setting of ours$"):
        load_settings(file=_file(tmp_path, "qqq = 1\n"))


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="worker is no setting of ours"):
        load_settings(file=_file(tmp_path, "worker = 1\n"))


def test_a_table_in_place_of_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chain"):
        load_settings(file=_file(tmp_path, "[chain]\nurl = 1\n"))


def test_an_unknown_variable_of_our_prefix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALA_JOBS_CHIAN", "x")

    with pytest.raises(ConfigError, match=r"PHALA_JOBS_CHIAN.*did you mean PHALA_JOBS_CHAIN"):
        load_settings()


def test_a_variable_of_another_option_is_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALA_JOBS_SUBMIT_TTL", "1h")

    assert load_settings(other_variables={"PHALA_JOBS_SUBMIT_TTL"}).settings.chain is None


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("[worker]\nslots = 0\n", "worker.slots", "0"),
        ("[worker]\nslots = 1025\n", "worker.slots", "1025"),
        ('[worker]\nslots = "many"\n', "worker.slots", "'many'"),
        ("keys = 3\n", "keys", "3"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_place(
    tmp_path: Path, text: str, place: str, value: str
) -> None:
    path = _file(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        load_settings(file=path)

    assert f"{place} (file {path} {place}): {value}: " in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        load_settings(file=tmp_path / "nowhere.toml")


@pytest.mark.parametrize("data", [b"chain = ", b"\xff\xfe\x00", b"chain = 'a'\nchain = 'b'\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(data)

    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(file=path)


def test_an_oversize_file_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = _file(tmp_path, "#" * (config.MAX_FILE_BYTES + 1))

    with pytest.raises(ConfigError, match=f"longer than {config.MAX_FILE_BYTES} bytes"):
        load_settings(file=path)


def test_the_sample_file_changes_nothing_as_it_is(tmp_path: Path) -> None:
    loaded = load_settings(file=_file(tmp_path, config.sample_file()))

    assert loaded.settings == load_settings().settings


def test_the_sample_file_with_every_line_switched_on_is_valid(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in config.sample_file().splitlines()
        if '1 = "' not in line
    ]
    path = _file(tmp_path, "\n".join(lines))

    loaded = load_settings(file=path)

    kinds = {name: origin.kind for name, origin in loaded.origins.items()}
    assert set(kinds.values()) == {OriginKind.FILE}, kinds
    assert loaded.settings.orchestrator_workers == (1, 2)
    assert tomllib.loads("\n".join(lines))["worker"]["slots"] == 2


def test_quotes_and_backslashes_in_a_sample_value_are_written_as_toml() -> None:
    quoted = sample._quoted('a\\b"c')

    assert tomllib.loads(f"x = {quoted}") == {"x": 'a\\b"c'}


def test_limits_on_spending_are_planck_up_to_what_a_chain_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PHALA_JOBS_MAX_FEE_PER_CALL", str(2**128 - 1))
    monkeypatch.setenv("PHALA_JOBS_MAX_SPEND_PER_DAY", "0")

    settings = load_settings().settings

    assert (settings.max_fee_per_call, settings.max_spend_per_day) == (2**128 - 1, 0)
    assert load_settings(options={"max_fee_per_call": "5"}).settings.max_fee_per_call == 5


@pytest.mark.parametrize("value", ["-1", str(2**128), "much", "1.5"])
def test_a_limit_on_spending_that_is_no_amount_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="max_spend_per_day"):
        load_settings(options={"max_spend_per_day": value})


def test_a_bundle_is_beside_the_file_that_names_it(tmp_path: Path) -> None:
    path = _file(tmp_path, 'bundle = "other.contract"\nspending_file = "spent.json"\n')

    settings = load_settings(file=path).settings

    assert settings.bundle == tmp_path / "other.contract"
    assert settings.spending_file == tmp_path / "spent.json"
