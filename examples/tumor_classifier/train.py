"""
Trains the classifier of the demo and measures it on patients that it has not seen.

The data are the 569 patients of the Wisconsin diagnostic breast cancer set, as scikit-learn ships
them. One patient in five is held out before anything is looked at; the strength of the
regularisation is chosen by cross-validation among the others. Everything is seeded: the same
versions of the libraries write the same files.

    python examples/tumor_classifier/train.py [--out FOLDER]
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import skl2onnx
import sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

OUT = Path(__file__).resolve().parents[2] / "orchestrator" / "demo_data"
SEED = 20261121
HELD_OUT_SHARE = 0.2
# As many as fit, sealed, into the default limit of 8,192 bytes per job, and on one screen.
DEMO_PATIENTS = 20
DIAGNOSES = ("benign", "malignant")


def write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table with one line of column names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def train(measurements: np.ndarray, malignant: np.ndarray) -> bytes:
    """Return the trained model as ONNX: float32 [n, 30] to `label` [n], `probabilities` [n, 2]."""
    folds = StratifiedKFold(n_splits=10, shuffle=True, random_state=SEED)
    pipeline = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=20,
            cv=folds,
            scoring="neg_log_loss",
            l1_ratios=(0.0,),
            max_iter=10_000,
            use_legacy_attributes=False,
        ),
    )
    pipeline.fit(measurements, malignant)
    model = skl2onnx.to_onnx(
        pipeline,
        name="tumor_classifier",
        initial_types=[("measurements", FloatTensorType([None, measurements.shape[1]]))],
        options={"zipmap": False},
        target_opset=17,
    )
    model.doc_string = "1 is malignant, 0 is benign. Trained by examples/tumor_classifier/train.py."
    return bytes(model.SerializeToString())


def predict(model: bytes, measurements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return label and probability of malignancy as the ONNX model itself gives them."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    table = measurements.astype(np.float32)
    label, probability = session.run(["label", "probabilities"], {"measurements": table})
    return label, probability[:, 1]


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean surprise, in nats, at what the patients have."""
    return float(-np.log(np.where(truth == 1, probabilities, 1 - probabilities)).mean())


def main() -> None:
    """Train, measure, write model, patients and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    data = load_breast_cancer()
    malignant = 1 - data.target  # scikit-learn counts malignant as 0
    known, held_out = train_test_split(
        np.arange(len(malignant)), test_size=HELD_OUT_SHARE, stratify=malignant, random_state=SEED
    )
    model = train(data.data[known], malignant[known])
    labels, probabilities = predict(model, data.data[held_out])
    truth = malignant[held_out]
    correct = int((labels == truth).sum())

    names = [str(name) for name in data.feature_names]
    rows = [[f"{value:.10g}" for value in data.data[case]] for case in held_out]
    truths = [DIAGNOSES[value] for value in truth]
    cases = [int(case) for case in held_out]
    keyed = list(zip(cases, truths, strict=True))
    (out / "tumor_classifier.onnx").write_bytes(model)
    write_csv(
        out / "held_out.csv",
        ["case", "diagnosis", *names],
        [[*key, *row] for key, row in zip(keyed, rows, strict=True)],
    )
    write_csv(out / "patients.csv", names, rows[:DEMO_PATIENTS])
    write_csv(out / "diagnoses.csv", ["case", "diagnosis"], keyed[:DEMO_PATIENTS])
    figures = {
        "model": "standardised logistic regression",
        "trained_on": len(known),
        "held_out": len(held_out),
        "correct": correct,
        "accuracy": round(correct / len(held_out), 4),
        "malignant_called_benign": int(((labels == 0) & (truth == 1)).sum()),
        "benign_called_malignant": int(((labels == 1) & (truth == 0)).sum()),
        "log_loss": round(log_loss(truth, probabilities), 4),
        "seed": SEED,
        "versions": {"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__},
    }
    (out / "accuracy.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
