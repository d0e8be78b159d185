"""The shipped model on the shipped patients does what `accuracy.json` says it does."""

import csv
import importlib.resources
import io
import json
from pathlib import Path

import pytest

from orchestrator.tasks.onnx import MODEL_FOLDER_VARIABLE, onnx

DATA = Path(str(importlib.resources.files("orchestrator"))) / "demo_data"
DIAGNOSES = {0: "benign", 1: "malignant"}


def read_csv(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((DATA / name).read_text(encoding="utf-8").splitlines()))


def write_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.fixture
def held_out() -> list[dict[str, str]]:
    return read_csv("held_out.csv")


def diagnose(table: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv(MODEL_FOLDER_VARIABLE, str(DATA))
    # onnxruntime writes a device id below the home folder otherwise.
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    output = json.loads(onnx.run(table, {"model": "tumor_classifier"}))
    return [DIAGNOSES[label] for label in output["outputs"]["label"]]


def test_the_model_is_as_accurate_as_recorded(
    held_out: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    truths = [row.pop("diagnosis") for row in held_out]
    for row in held_out:
        del row["case"]

    found = diagnose(write_csv(held_out), monkeypatch)

    figures = json.loads((DATA / "accuracy.json").read_text(encoding="utf-8"))
    outcomes = list(zip(found, truths, strict=True))
    correct = sum(diagnosis == truth for diagnosis, truth in outcomes)
    assert len(outcomes) == figures["held_out"] == 114
    assert correct == figures["correct"]
    assert round(correct / len(outcomes), 4) == figures["accuracy"]
    assert outcomes.count(("benign", "malignant")) == figures["malignant_called_benign"]
    assert outcomes.count(("malignant", "benign")) == figures["benign_called_malignant"]


def test_the_patients_of_the_demo_are_held_out_ones(held_out: list[dict[str, str]]) -> None:
    patients = read_csv("patients.csv")
    diagnoses = read_csv("diagnoses.csv")

    assert len(patients) == len(diagnoses) == 20
    for patient, diagnosis, row in zip(patients, diagnoses, held_out, strict=False):
        assert {**diagnosis, **patient} == row


def test_both_diagnoses_are_among_the_patients_of_the_demo() -> None:
    assert {row["diagnosis"] for row in read_csv("diagnoses.csv")} == set(DIAGNOSES.values())


def test_the_patients_of_the_demo_fit_into_one_job() -> None:
    # 8,192 bytes is the contract's default; sealing adds less than 2,048 to a table of this size.
    assert (DATA / "patients.csv").stat().st_size <= 8192 - 2048


def test_no_patient_of_the_demo_is_shown_with_a_diagnosis() -> None:
    assert not {"case", "diagnosis"} & set(read_csv("patients.csv")[0])
