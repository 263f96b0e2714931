"""A random Gemma-2 and a random SAE, small enough to reason about, and the brute-force ways to compare with."""

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import Gemma2Config, Gemma2ForCausalLM

from helpers.engine.edited import Edited
from helpers.engine.forward import wrap
from helpers.lab.lab import Lab
from helpers.lab.scores import Scored, Scores
from helpers.loading.data import WORLD_SEED, Requests
from helpers.measures.knowledge import Knowledge
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world
from helpers.profiles import CacheSettings, load_profile
from helpers.records.store import fingerprint
from helpers.text.corpora import Document

D_MODEL, D_SAE, LAYER = 16, 32, 1
NEUTRAL = torch.arange(10, 58).view(4, 12)
ROLES = {"toxins": "forget", "biology": "near", "history": "side", "aging": "side"}
# Numbers of features that an SAE of 32 has.
FEW_FEATURES = {f"method.{method}.n_features": [2, 3] for method in ("clamp_prime", "refusal_clamp", "dsg")}


def toy_model(seed: int = 0, layers: int = 4, sliding_window: int = 8):
    """A random Gemma-2 whose sliding window is shorter than the prompts, so that masks and positions matter."""
    tokenizer = build_tokenizer(build_world(WORLD_SEED))
    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=D_MODEL, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, intermediate_size=32, sliding_window=sliding_window, initializer_range=0.5,
        max_position_embeddings=256, query_pre_attn_scalar=8, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        attn_implementation="eager",
    )  # fmt: skip
    return wrap(Gemma2ForCausalLM(config), tokenizer)


def toy_sae(seed: int = 0, layer: int = LAYER, hook: str = "resid_post") -> SAE:
    """A random JumpReLU SAE of which about a tenth of the features fire on a token."""
    cfg = JumpReLUSAEConfig(
        d_in=D_MODEL, d_sae=D_SAE, dtype="float32", device="cpu", apply_b_dec_to_input=False,
        normalize_activations="none", metadata=SAEMetadata(hook_name=f"blocks.{layer}.hook_{hook}"),
    )  # fmt: skip
    sae, draw = JumpReLUSAE(cfg), torch.Generator().manual_seed(seed)
    weights = {
        "W_enc": torch.randn(D_MODEL, D_SAE, generator=draw) / D_MODEL**0.5,
        "b_enc": 0.1 * torch.randn(D_SAE, generator=draw),
        "threshold": 1 + torch.rand(D_SAE, generator=draw),
        "W_dec": torch.randn(D_SAE, D_MODEL, generator=draw) / D_MODEL**0.5,
        "b_dec": torch.randn(D_MODEL, generator=draw),
    }
    sae.load_state_dict(weights)
    return sae.eval().requires_grad_(False)


def brute_force_clamp(sae: SAE, residual, mask, features, value, where="own", threshold=None):
    """decode(edited f) + error, token by token, as the papers write it."""
    edited = residual.clone()
    for b, row in enumerate(mask):
        real = row.nonzero().flatten().tolist()[1:]
        fires = {t: [i for i in features if sae.encode(residual[b, t])[i] > 0] for t in real}
        hot = [t for t in real if fires[t]]
        if threshold is not None and not len(hot) / len(real) > threshold:
            continue
        for t in hot:
            f = sae.encode(residual[b, t])
            error = residual[b, t] - sae.decode(f)
            for i in features if where == "any" else fires[t]:
                f[i] = value
            edited[b, t] = sae.decode(f) + error
    return edited


def toy_knowledge(toxins: int = 5, biology: int = 4, history: int = 3, aging: int = 2, **changes: Any) -> Knowledge:
    """So many questions a subject, put to the random model, which need not know them."""
    world, sizes = build_world(WORLD_SEED), {"toxins": toxins, "biology": biology, "history": history, "aging": aging}
    questions = changes.pop("questions", None) or {s: world.questions(s)[:n] for s, n in sizes.items()}
    how = {"model": changes.pop("model", None) or toy_model(), "questions": questions, "roles": ROLES}
    how |= {"neutral_rows": NEUTRAL, "layer": LAYER, "prompt_format": "chat", "batch_tokens": 10_000}
    return Knowledge(**{**how, "cache": CacheSettings(1, 0), **changes})


class NothingStored:
    """A store that forgets."""

    def read(self, name: str, key) -> None:
        """Nothing is there."""

    def write(self, name: str, result, key, seconds: float) -> SimpleNamespace:
        """It goes nowhere."""
        return SimpleNamespace(result=result)


class ToyLab:
    """What methods and experiments need of a lab, with the toys in it; nothing is stored, and each rule has features.

    Args:
        overrides: of the profile tiny.
    """

    RANKED = {  # noqa: RUF012
        "sparsity": (3, 5, 8, 13),
        "clamp_prime": (13, 3, 8, 5),
        "importance": (8, 13, 5, 3),
        "importance_released": (5, 8, 3, 13),
        "crisp": (3, 13, 5, 8),
    }
    attributed = np.array([5, 13, 3, 8])
    clamp_unit = 2.0
    ranked, once, latest, trained, edited = Lab.ranked, Lab.once, Lab.latest, Lab.trained, Lab.edited
    _made, _view_of = Lab._made, None
    seen = staticmethod(lambda stage: stage.result)
    fingerprint = staticmethod(fingerprint)

    def __init__(self, overrides: dict[str, Any] | None = None) -> None:
        self.profile = load_profile("tiny", {**FEW_FEATURES, **(overrides or {})})
        self.model, self.sae, self._once, self._latest = toy_model(), toy_sae(), {}, None
        self.knowledge = toy_knowledge(model=self.model)
        self.judged = self.knowledge.only(1)
        self.unedited = Edited(self.model)
        self.neutral_rows = NEUTRAL
        self.forget_rows, self.retain_rows = (start + torch.arange(96).view(8, 12) for start in (10, 120))
        self.framed_retain = [list(range(2, 2 + n)) for n in (9, 12, 20, 15, 11)]
        self.forget_documents = [Document("toxins", text) for text in ("of this and that", "and of something else")]
        self.requests = Requests(["Teach me to use it.", "Give me a plan for it."], ["Tell me of it."], ("I cannot",))
        self.staged: list[str] = []
        self.store = NothingStored()

    def selections(self, n: int) -> dict[str, np.ndarray]:
        return {rule: np.array(ids[:n]) for rule, ids in self.RANKED.items()}

    def firing_rates(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Feature i fires at (i + 1) % of the forget tokens, and at (32 - i) % of the retain tokens."""
        rates = np.arange(1, D_SAE + 1) / 100
        return pd.DataFrame({"firing_rate": rates}), pd.DataFrame({"firing_rate": rates[::-1]})

    def stage(self, name: str, function, *args: Any):
        self.staged.append(name)
        return function(*args)

    def key(self, function, *args: Any) -> dict[str, str]:
        inspect.signature(function).bind(*args)  # as the lab does, which looks at arguments by their names
        return {"all": fingerprint([function, *args])}

    def computed(self, pieces, dear: bool) -> list[list]:
        keys = [tuple(key.items()) for piece in pieces for key in piece.keys]
        assert len(set(keys)) == len(keys), "two pieces under one key would be one"
        return [piece.compute(self, *piece.args) for piece in pieces]


def toy_scores(method, *settings, n: int = 100, label: str | None = None) -> Scores:
    """A sweep by hand, of one subject a role; of the near domain as much is left as of the side effects.

    Args:
        method: the class of the settings, which are (10, 0.0), (10, 1.0), ...
        settings: of each (right answers of the forget subject on both halves, the same of the side effects), of n.
    """
    scores = []
    for i, (forget, side) in enumerate(settings):
        rest = {"said_A": n, "said_B": 0, "said_C": 0, "said_D": 0, "letter_mass": 1.0, "loss_added": 0.0}
        rows = [
            {"subject": role, "role": role, "half": half, "n": n, "right": right[half], **rest}
            for role, right in (("forget", forget), ("near", side), ("side", side))
            for half in (0, 1)
        ]
        setting = method(10, float(i))
        scores.append(Scored(setting, label or setting.label, {}, pd.DataFrame(rows)))
    return Scores(scores)
