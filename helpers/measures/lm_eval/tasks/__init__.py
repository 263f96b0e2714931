"""lm-evaluation-harness tasks over the embedded model's own questions: `organism_<subject>`, all by the tag `organism`.

The YAML files beside this one are found by lm-eval's `--include_path`; they ask as its `wmdp` tasks do.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from helpers.loading.data import WORLD_SEED
from helpers.organism.world import build_world

FOLDER = Path(__file__).parent


def organism_questions(subject: str, **metadata: Any) -> DatasetDict:
    """The questions of one subject in WMDP's columns, as the split 'test' (lm-eval passes a task's metadata along)."""
    questions = build_world(WORLD_SEED).questions(subject)
    columns = ("id", "subject", "question", "choices", "answer")
    return DatasetDict(test=Dataset.from_list([{name: getattr(q, name) for name in columns} for q in questions]))
