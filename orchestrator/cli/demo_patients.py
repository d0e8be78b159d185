"""The demo's input, what a model said about it, and whether bytes of either are anywhere."""

import csv
import io
import json
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from orchestrator.encoding import blake2_256

MODEL = "tumor_classifier"
SOURCE = "Wisconsin diagnostic breast cancer data (UCI 1993, CC BY 4.0)"
PART_BYTES = 16  # shorter ones would be found by chance in the end


@dataclass(frozen=True, kw_only=True)
class Patients:
    """The demo's input, and what is true of it."""

    table: bytes
    diagnoses: tuple[tuple[str, str], ...]
    folder: Path
    model_hash: bytes
    accuracy: str
    """How the model did on all held-out patients, in words."""


def load_patients(folder: Path) -> Patients:
    """The first held-out patients of the demo data in *folder*."""
    reader = csv.DictReader(io.StringIO((folder / "diagnoses.csv").read_text("utf-8")))
    measured = json.loads((folder / "accuracy.json").read_text("utf-8"))
    return Patients(
        table=(folder / "patients.csv").read_bytes(),
        diagnoses=tuple((row["case"], row["diagnosis"]) for row in reader),
        folder=folder,
        model_hash=blake2_256((folder / f"{MODEL}.onnx").read_bytes()),
        accuracy=f"{measured['correct']} of {measured['held_out']}",
    )


def predictions(output: bytes) -> list[tuple[str, float]]:
    """What the model says of each patient, and the probability of malignant."""
    outputs = json.loads(output)["outputs"]
    words = ("benign", "malignant")
    return [
        (words[label], chances[1])
        for label, chances in zip(outputs["label"], outputs["probabilities"], strict=True)
    ]


def contains_part(data: bytes, secret: bytes) -> bool:
    """Whether any `PART_BYTES` consecutive bytes of the secret, or all of a shorter, are in it."""
    if len(secret) < PART_BYTES:
        return secret in data
    half = PART_BYTES // 2
    # As many bytes in a row, wherever they begin, hold one of these blocks in full.
    for at in range(0, len(secret) - half + 1, half):
        block = secret[at : at + half]
        found = data.find(block)
        while found >= 0:
            if _equal_around(data, found, secret, at) >= PART_BYTES:
                return True
            found = data.find(block, found + 1)
    return False


def _equal_around(data: bytes, found: int, secret: bytes, at: int) -> int:
    """How many bytes in a row are equal around two places, up to `PART_BYTES` to each side."""
    before = after = 0
    while (
        before < min(PART_BYTES, found, at) and data[found - before - 1] == secret[at - before - 1]
    ):
        before += 1
    while (
        after < min(PART_BYTES, len(data) - found, len(secret) - at)
        and data[found + after] == secret[at + after]
    ):
        after += 1
    return before + after


def has_leaked(places: Sequence[Path], secrets: Sequence[bytes]) -> bool:
    """Whether a part of one of the secrets is in a file below the places."""
    files = [
        path
        for place in places
        for path in ([place] if place.is_file() else sorted(place.rglob("*")))
        if path.is_file()
    ]
    return any(contains_part(path.read_bytes(), secret) for path in files for secret in secrets)


def search_apart(places: Mapping[str, Sequence[Path]], secrets: Sequence[bytes]) -> dict[str, bool]:
    """
    What `has_leaked` says of each of the named places, asked by another process.

    This one has the chain's file open: it would lose SQLite's locks on it by reading it.
    """
    with ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        # Ctrl-C is for this process, which waits for the other one.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as process:
        found = [process.submit(has_leaked, paths, secrets) for paths in places.values()]
        return {place: leaks.result() for place, leaks in zip(places, found, strict=True)}
