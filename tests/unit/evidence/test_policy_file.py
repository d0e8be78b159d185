"""The policy file: what it says, what is an error, and that its schema says the same."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from importlib import resources

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from orchestrator.encoding import blake2_256
from orchestrator.errors import ConfigError
from orchestrator.evidence import (
    INTEL_ROOT,
    MAX_POLICY_BYTES,
    Attributes,
    Platforms,
    Policy,
    Root,
    SgxMeasurements,
    TcbRules,
    TdxMeasurements,
    load_policy,
    load_root,
    policy_schema,
    starter_policy,
)
from orchestrator.evidence.policy_file import PolicyDocument
from orchestrator.simulator import Authority

AUTHORITY = Authority.create()
REGISTER = "ab" * 48
TDX = f"""
[[tdx]]
name = "one"
mrtd = "{REGISTER}"
rtmr0 = "{REGISTER}"
rtmr1 = "{REGISTER}"
rtmr2 = "{REGISTER}"
"""
FULL = f"""
version = 1
[roots]
intel = true
[roots.other]
"my simulator" = '''
{AUTHORITY.root.pem}'''
{TDX}
compose_hash = "{"cd" * 32}"
app_id = "{"EF" * 20}"
[[sgx]]
name = "two"
mrsigner = "{"12" * 32}"
isv_prod_id = 3
minimum_isv_svn = 4
[tcb]
statuses = ["UpToDate", "SWHardeningNeeded"]
denied_advisories = ["INTEL-SA-00837"]
minimum_evaluation_number = 20
[tcb.grace]
OutOfDate = "14d"
[platforms]
allowed = ["{"34" * 16}"]
denied = ["{"56" * 16}"]
dynamic_platform = false
cached_keys = false
smt = false
[attributes]
debug = true
[events]
required = ["system-ready"]
forbidden = ["init-script-hash"]
[events.payloads]
key-provider = "7b7D"
mr-kms = "sha256:{"AB" * 32}"
storage-fs = ""
[limits]
maximum_age = "90s"
maximum_registration = "36h"
"""


def test_every_key_is_read() -> None:
    register = bytes.fromhex(REGISTER)

    policy = load_policy(FULL.encode())

    assert policy == Policy(
        policy_hash=blake2_256(FULL.encode()),
        roots=(
            Root(name="intel", certificate=INTEL_ROOT, is_intel=True),
            Root(name="my simulator", certificate=AUTHORITY.root_certificate, is_intel=False),
        ),
        measurements=(
            TdxMeasurements(
                name="one",
                mrtd=register,
                rtmr0=register,
                rtmr1=register,
                rtmr2=register,
                compose_hash=b"\xcd" * 32,
                app_id=b"\xef" * 20,
            ),
            SgxMeasurements(name="two", mrsigner=b"\x12" * 32, isv_prod_id=3, minimum_isv_svn=4),
        ),
        tcb=TcbRules(
            statuses=frozenset({"UpToDate", "SWHardeningNeeded"}),
            grace={"OutOfDate": 14 * 86_400_000},
            denied_advisories=frozenset({"INTEL-SA-00837"}),
            minimum_evaluation_number=20,
        ),
        platforms=Platforms(
            allowed=frozenset({b"\x34" * 16}),
            denied=frozenset({b"\x56" * 16}),
            dynamic_platform=False,
            cached_keys=False,
            smt=False,
        ),
        attributes=Attributes(debug=True),
        required_events=frozenset({"system-ready"}),
        forbidden_events=frozenset({"init-script-hash"}),
        event_payloads={
            "key-provider": sha256(b"{}").digest(),
            "mr-kms": b"\xab" * 32,
            "storage-fs": sha256(b"").digest(),
        },
        maximum_age=90_000,
        maximum_registration=36 * 3_600_000,
    )


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"version = 1\n[tcb]\n[roots]\n"])
def test_what_is_not_in_the_file_is_not_allowed(data: bytes) -> None:
    assert load_policy(data) == Policy(policy_hash=blake2_256(data))


def test_the_hash_is_of_the_bytes() -> None:
    assert load_policy(b"").policy_hash != load_policy(b"\n").policy_hash


def test_the_starter_loads_and_allows_nothing() -> None:
    policy = load_policy(starter_policy().encode())

    assert policy.measurements == ()
    assert [root.name for root in policy.roots] == ["intel"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tbc = 1", "tbc is not known; did you mean tcb?"),
        ("[tcb]\nstatusses = []", "tcb.statusses is not known; did you mean statuses?"),
        ("[limits]\nxyz = 1", "limits.xyz is not known; known are maximum_age"),
        ("[[tdx]]\nmrdt = 1", r"tdx\[0\].mrdt is not known; did you mean mrtd?"),
        ("[roots]\nInfel = true", "roots.Infel is not known; did you mean intel?"),
        ("version = 2", "version: must be 1"),
        ("version = true", "version: must be 1"),
        ("version = 1.0", "version: must be 1"),
        ("version = " + "1" * 5_000, "not TOML"),
        ("version = 0x" + "1" * 50_000, "version: must be 1"),
        ("x = 1979-05-27T07:32:00+99:99", "not TOML"),
        ('[events.payloads]\nkey-provider = "abc"', "key-provider.*must be the payload in hex"),
        ('[events.payloads]\nkey-provider = "sha256:ab"', "must be the payload in hex, or sha256:"),
        ("[events.payloads]\nkey-provider = 1", "must be the payload in hex"),
        ('[events.payloads]\n"a:b" = ""', "events.payloads.'a:b': string should match"),
        (TDX + f'app_id = "{"00" * 20}"', "set 'one' names app_id alone.*pin key-provider"),
        (
            TDX + f'app_id = "{"00" * 20}"\n[events.payloads]\nmr-kms = ""',
            "set 'one' names app_id alone",
        ),
        ("[tcb]\nstatuses = [" + '"UpToDate",' * 1_025 + "]", "statuses: list should have at most"),
        ("sgx = [" + "{}," * 257 + "]", "sgx: list should have at most 256"),
        ("tdx = [" + "{}," * 257 + "]", "tdx: list should have at most 256"),
        ("roots = 1", "roots: input should be"),
        ('[roots]\nintel = "yes"', "roots.intel: input should be a valid boolean"),
        ("[roots]\nintel = 1", "roots.intel: input should be a valid boolean"),
        ('[tdx]\nname = "one"', "tdx: input should be a valid list"),
        (TDX, r"tdx\[0\]: a set names compose_hash or app_id, or says application_in"),
        (
            TDX + f'app_id = "{"00" * 20}"\napplication_in_registers = true',
            "application_in_registers = true, not both",
        ),
        (TDX.replace(REGISTER, REGISTER[:-2]), r"mrtd: 94 characters, must be 96 hex digits"),
        (TDX.replace(REGISTER, "0x" + REGISTER), "mrtd: 98 characters"),
        (TDX.replace(REGISTER, "zz" * 48), "mrtd: 96 characters, must be 96 hex digits"),
        ('[[sgx]]\nname = "one"', "a set names mrenclave, or mrsigner with isv_prod_id"),
        (
            f'[[sgx]]\nname = "one"\nmrsigner = "{"00" * 32}"\nisv_prod_id = 1',
            "a set names mrenclave, or mrsigner with isv_prod_id",
        ),
        (
            f'[[sgx]]\nname = "a"\nmrenclave = "{"00" * 32}"\n' * 2,
            "two measurement sets are named 'a'",
        ),
        (f'[[sgx]]\nname = "a\\nb"\nmrenclave = "{"00" * 32}"', r"sgx\[0\].name: string should"),
        ('[tcb]\nstatuses = ["Uptodate"]', "'Uptodate' is no TCB status; did you mean UpToDate?"),
        ('[tcb]\nstatuses = ["Revoked"]', "Revoked is always refused"),
        ('[tcb.grace]\nRevoked = "1d"', "tcb.grace.Revoked: Revoked is always refused"),
        ('[tcb.grace]\nOutOfDate = "1w"', "'1w', must be a duration like 30s, 10m, 24h or 7d"),
        ("[tcb.grace]\nOutOfDate = 86400", "86400, must be a duration"),
        ('[limits]\nmaximum_age = "0s"', "maximum_age: '0s', must be a duration"),
        ('[limits]\nmaximum_age = "9999d"', "9999d, at most 3650d"),
        ('[limits]\nmaximum_age = "10 m"', "must be a duration"),
        ('[tcb]\ndenied_advisories = ["SA-00837"]', r"denied_advisories\[0\]: string should match"),
        ("[tcb]\nminimum_evaluation_number = -1", "should be greater than or equal to 0"),
        ("[tcb]\nminimum_evaluation_number = true", "should be a valid integer"),
        ('[platforms]\nallowed = ["00"]', r"allowed\[0\]: 2 characters, must be 32 hex digits"),
        ('[events]\nrequired = ["a:b"]', r"required\[0\]: string should match"),
        ('[roots.other]\nx = "no PEM"', "roots.other.x: must be one certificate as PEM"),
        ("a = " + "[" * 5_000 + "]" * 5_000, "not TOML"),
        ("x = 1\nx = 2", "not TOML"),
    ],
)
def test_a_mistake_is_an_error_that_names_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_policy(text.encode())


def test_bytes_that_are_no_text_and_files_without_end_are_errors() -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        load_policy(b"\xff")
    longest = b"#" * MAX_POLICY_BYTES
    assert load_policy(longest) == Policy(policy_hash=blake2_256(longest))
    with pytest.raises(ConfigError, match="at most 65536"):
        load_policy(longest + b"#")
    # Much memory and time for the parser, if it got them.
    for bomb in (b"a" + b".a" * 30_000 + b" = 1", b"[a" + b".a" * 201 + b"]"):
        with pytest.raises(ConfigError, match="a line has more than 200 dots"):
            load_policy(bomb)


def test_an_app_id_alone_goes_with_a_pinned_key_provider() -> None:
    text = TDX + f'app_id = "{"00" * 20}"\n[events.payloads]\nkey-provider = "7b7d"'

    (one,) = load_policy(text.encode()).measurements

    assert isinstance(one, TdxMeasurements)
    assert (one.compose_hash, one.app_id) == (None, bytes(20))


def pem_of(der: bytes) -> str:
    return load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def test_intels_root_goes_by_its_name_alone() -> None:
    intel = pem_of(INTEL_ROOT)

    with pytest.raises(ConfigError, match="this is Intel's; write intel = true"):
        load_root("another", intel)
    with pytest.raises(ConfigError, match="the name is Intel's"):
        load_root("Intel", AUTHORITY.root.pem)


def test_a_root_is_one_self_signed_ca() -> None:
    leaf_and_root = AUTHORITY.pck_chain(AUTHORITY.issue_pck(b"\5\0"))

    with pytest.raises(ConfigError, match="must be one certificate"):
        load_root("chain", leaf_and_root)
    with pytest.raises(ConfigError, match="must be a root"):
        load_root("intermediate", AUTHORITY.issue_pck(b"\5\0").pem)
    assert load_root("root", AUTHORITY.root.pem).certificate == AUTHORITY.root_certificate


def test_the_shipped_schema_is_the_readers() -> None:
    shipped = resources.files("orchestrator.evidence").joinpath("policy.schema.json").read_text()

    assert json.loads(shipped) == policy_schema()


def test_the_schema_knows_the_same_keys_and_explains_each() -> None:
    schema = policy_schema()
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)

    for name, table in {"PolicyDocument": schema, **definitions}.items():
        assert table["additionalProperties"] is False, name
        for key, told in table["properties"].items():
            assert told.get("description") or "$ref" in told, f"{name}.{key}"
    assert set(schema["properties"]) == set(PolicyDocument.model_fields)  # type: ignore[call-overload]  # a JSON object


def test_times_are_milliseconds() -> None:
    day = int(datetime(1970, 1, 2, tzinfo=UTC).timestamp() * 1000)

    assert load_policy(b'[limits]\nmaximum_registration = "1d"').maximum_registration == day
