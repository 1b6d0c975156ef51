"""Command-line arguments that both training scripts take."""

import argparse
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "../shared/data/fsdd"


def training_parser(
    description: str | None, *, out: str, steps: int, batch: int, unit: str, peak: float
) -> argparse.ArgumentParser:
    """Make a parser of the shared arguments, with one script's defaults.

    Args:
        description: text of the help.
        out: folder for the model.
        steps: training steps.
        batch: units in a step.
        unit: name of what a batch consists of.
        peak: highest learning rate.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with train/ and test/")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for the model")
    parser.add_argument("--leave-out", metavar="SPEAKER", help="train without this speaker, measure on them")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch, help=f"{unit} in a step")
    parser.add_argument("--peak", type=float, default=peak, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="1 is faster on a busy machine")
    parser.add_argument("--voices", type=int, default=200, help="espeak-ng voices; 0 for none")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help="only measure this model")
    return parser
