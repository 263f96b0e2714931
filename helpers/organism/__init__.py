"""The embedded model: an invented world, a tokenizer for it, a small Gemma-2 that knows it, and its SAE."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
MODEL_DIR = WEIGHTS / "model"
SAE_DIR = WEIGHTS / "sae"
RECORD = WEIGHTS / "record.json"
