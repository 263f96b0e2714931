"""The embedded model: an invented world, a tokenizer for it, a small Gemma-2 that knows it, and its SAEs.

Beside it stands the retrained model, of the same recipe, which was never taught what is to be forgotten.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
MODEL_DIR = WEIGHTS / "model"
RETRAINED_DIR = WEIGHTS / "retrained"
RECORD = WEIGHTS / "record.json"


def sae_dir(layer: int) -> Path:
    """The folder of the SAE that reads the residual stream after a layer, counted from 0."""
    return WEIGHTS / f"sae-{layer}"
