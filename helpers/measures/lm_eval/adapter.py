"""Our interventions inside lm-evaluation-harness: its Hugging Face model, with an intervention in place.

lm-eval's own `steered` model adds one direction to every token. Here any `Clamp` acts, conditional ones included, with
padding and BOS left alone and a gate asked once a sequence.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import nnsight
import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers.engine.architecture import decoder
from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Clamp, DuringGeneration
from helpers.measures.lm_eval.tasks import FOLDER

try:
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import handle_non_serializable, make_table
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"lm-eval is needed and is an extra: pip install '.[lm-eval]' ({error})") from error


def harness_model(model, tokenizer, intervention: Clamp | None, batch_size: int | str = 8) -> LM:
    """The model as lm-eval asks it, under an intervention: for `lm_eval.simple_evaluate(model=...)`.

    The intervention stands in the model only while lm-eval calls it, so that nothing is left to remove, not even after
    an error, and the same model can serve others in between.

    Args:
        model: ours (nnsight's) or a Hugging Face causal language model.
        intervention: None for the unedited model.
        batch_size: requests a forward pass, or 'auto'; changes time and memory, no score.
    """
    hf_model = huggingface(model) if isinstance(model, nnsight.TransformersModel) else model
    if intervention is None:
        return HFLM(pretrained=hf_model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)
    return EditedHFLM(hf_model, tokenizer, intervention, batch_size)


def task_manager(source: str) -> TaskManager:
    """The tasks one may ask for: the embedded model's own where questions are the organism's, else all of lm-eval's."""
    if source == "organism":
        return TaskManager(include_path=str(FOLDER), include_defaults=False)
    return TaskManager()


def run_tasks(
    edited: Edited, tasks: Sequence[str], manager: TaskManager, limit: int | None, batch_size: int
) -> tuple[dict[str, Any], str]:
    """lm-eval's results of an edited model, as JSON without places of this machine, and its table.

    Args:
        limit: ask only the first so many questions of each task.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of what is meant here: a model already loaded
    asked = harness_model(edited.model, edited.model.tokenizer, edited.intervention, batch_size)
    results = lm_eval.simple_evaluate(
        asked, tasks=list(tasks), task_manager=manager, limit=limit, batch_size=batch_size, log_samples=False
    )
    del results["pretty_env_info"]  # the machine in every detail; our own record says what counts
    results["config"]["model"] = type(asked).__name__
    for config in results["configs"].values():
        config["metadata"].pop("config_source", None)
    return json.loads(json.dumps(results, default=handle_non_serializable)), make_table(results)


class EditedHFLM(HFLM):
    """lm-eval's Hugging Face model, every answer of which is given under an intervention.

    A gate is asked once a request, on its context, and its verdict holds for the continuation that is scored as for the
    text that is generated. A request without a context (perplexity of a text) is judged as a whole. The first token of
    a request counts as BOS, also where lm-eval has cut a long context from the left.

    Args:
        model: a Hugging Face causal language model whose decoder layers are `model.layers`.
        intervention: acts after its SAE's layer.
        batch_size: requests a forward pass, or 'auto'.
    """

    def __init__(self, model: PreTrainedModel, tokenizer, intervention: Clamp, batch_size: int | str) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)
        self._intervention = intervention
        self._words = cast(torch.nn.Embedding, model.get_input_embeddings()).num_embeddings

    def _loglikelihood_tokens(self, requests: list[tuple[Any, list[int], list[int]]], **options: Any) -> list:
        """Log-likelihoods of (key, context, continuation), by lm-eval's own code on marked token ids.

        lm-eval pads with zeros and passes no mask, so ids are marked first, and read again by `_model_call`: 0 is
        padding, the next `_words` numbers are tokens of a continuation, those after them tokens of a context.
        """
        marked = [
            (key, [self._words + 1 + i for i in context], [1 + i for i in continuation])
            for key, context, continuation in requests
        ]
        return super()._loglikelihood_tokens(marked, **options)

    def _model_call(self, inps: Tensor, **options: Any) -> Tensor:
        """Logits [batch, seq, 1 + words] of marked token ids [batch, seq]; column 0 stands for padding."""
        real, judged = inps > 0, inps > self._words
        # one token of context is only the mark that lm-eval puts before a text
        judged = torch.where(judged.sum(dim=1, keepdim=True) > 1, judged, real)
        with self._edited(lambda residual: self._edit(residual, real, judged)):
            logits = super()._model_call((inps - 1).clamp(min=0) % self._words, **options)
        return torch.nn.functional.pad(logits, (1, 0), value=-torch.inf)

    def _edit(self, residual: Tensor, real: Tensor, judged: Tensor) -> Tensor:
        evidence = self._intervention.evidence(residual, self._intervention.hot(residual))
        opened = self._intervention.opened(evidence, judged)
        return self._intervention.edit(residual, self._intervention.touchable(real) & opened[:, None])

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        """Token ids [batch, max_length at most] of padded prompts [batch, seq] with what was generated after them."""
        # beam search and the like run several copies of each prompt
        copies = max(options.get("num_beams") or 1, options.get("num_return_sequences") or 1)
        mask = options["attention_mask"].bool().repeat_interleave(copies, dim=0)
        with self._edited(DuringGeneration(self._intervention, mask)):
            return super()._model_generate(context, max_length, stop, **options)

    @contextmanager
    def _edited(self, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        block = decoder(self.model).layers[self._intervention.layer]
        handle = block.register_forward_hook(lambda block, inputs, residual: edit(residual))
        try:
            yield
        finally:
            handle.remove()
