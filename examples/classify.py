"""Label recordings with a classifier, best label first.

    python examples/classify.py samples/digits/one_digit_8k.wav

`CLASSIFIER` names another checkpoint of audio classification, a folder or a hub id.
"""

import os
import sys
from pathlib import Path

import tritone

BUNDLED = Path(__file__).parents[1] / "models" / "digit_classifier"  # ten spoken digits


def main(*paths: str) -> None:
    with tritone.Engine(os.environ.get("CLASSIFIER", BUNDLED)) as engine:
        for path, result in zip(paths, engine.classify(paths, top_k=3), strict=True):
            if result.error is not None:
                print(f"{path}: {result.error}", file=sys.stderr)
                continue
            print(path, *(f"{label.label} {label.score:.3f}" for label in result.labels), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
