"""What docs/policy.md says about the file is so."""

import re
from pathlib import Path

from orchestrator.evidence import (
    EvidenceCheck,
    TcbRules,
    load_policy,
    policy_schema,
    starter_policy,
)
from orchestrator.evidence.tcb import REVOKED, TCB_STATUSES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "policy.md").read_text()
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ROWS = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))


def test_the_example_can_be_read() -> None:
    policy = load_policy(EXAMPLE.encode())

    assert [one.name for one in policy.measurements] == ["billing 1.4", "billing enclave"]
    assert policy.tcb.grace == {"OutOfDate": 14 * 86_400_000}


def test_the_starter_has_the_defaults_but_intels_root_and_up_to_date() -> None:
    starter, empty = load_policy(starter_policy().encode()), load_policy(b"")

    assert starter.tcb == TcbRules(statuses=frozenset({"UpToDate"}))
    for name in ("platforms", "attributes", "required_events", "maximum_age"):
        assert getattr(starter, name) == getattr(empty, name)
    assert starter.maximum_registration == empty.maximum_registration


def test_every_key_of_the_file_is_explained() -> None:
    schema = policy_schema()
    tables = schema["$defs"]
    assert isinstance(tables, dict)

    keys = {key for table in tables.values() for key in table["properties"]} - {"grace"}
    keys -= {"intel", "other"}

    assert {key for key in keys if f"`{key}`" not in ROWS} == set()
    for dotted in ("roots.intel", "roots.other", "tcb.grace", "version", "tdx", "sgx"):
        assert f"`{dotted}`" in ROWS


def test_every_status_and_check_is_named() -> None:
    assert all(f"`{status}`" in ROWS for status in TCB_STATUSES if status != REVOKED)
    assert all(f"| {check.value} |" in TEXT for check in EvidenceCheck)
