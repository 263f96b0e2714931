"""The files a loopback hub serves: the embedded model, its SAE and its world, under the papers' names and layouts.

The organism is padded with zeros to Gemma's hidden size and deepened with layers that add nothing, so that it answers
as before while every file has the name, shape and columns that the real clients insist on.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.loading.data import WORLD_SEED, load_texts
from helpers.organism import MODEL_DIR, sae_dir
from helpers.organism.world import build_world
from helpers.profiles import load_profile
from helpers.text.questions import Question

WIDTH = 16384
# Where the organism's six layers stand among those that add nothing: its SAE's layer, 1, becomes the papers' layer 3
# or, with nothing added in between, layer 7 as well; in Gemma 1 it becomes layer 8, which Farrell calls 9 resid_pre.
# Layers that add nothing are computed all the same, so what needs no layer 7 is served without.
GEMMA_2 = (2304, 8, (2, 3, 4, 5, 6, 7))
GEMMA_2_DEEP = (2304, 12, (2, 3, 8, 9, 10, 11))
GEMMA_1 = (2048, 13, (7, 8, 9, 10, 11, 12))
# The organism's feature i is feature 8 i + 3 here, so that ids reach as far as in a real SAE; 1145 and 1927 change
# places, so that Farrell's feature, 9163, is the organism's own best one.
SPREAD = 8 * torch.arange(WIDTH // 8) + 3
SPREAD[[1145, 1927]] = SPREAD[[1927, 1145]]

MODELS = {"google/gemma-2-2b-it": GEMMA_2, "google/gemma-2-2b": GEMMA_2_DEEP, "google/gemma-2b-it": GEMMA_1}
SAES = tuple(f"layer_{place}/params.npz" for place in (
    "3/width_16k/average_l0_59", "3/width_16k/average_l0_142", "7/width_16k/average_l0_69",
))  # fmt: skip
FARRELL_SAE = "jolly-dream-40/sparse_autoencoder_gemma-2b-it_blocks.9.hook_resid_pre_s16384_127995904.pt"
# Every question set: the organism's subject that is served as it, and how many rows the real one has. As the organism
# has fewer questions, they come again from the start.
QUESTIONS = {
    "wmdp-bio": ("toxins", 1273), "wmdp-cyber": ("malware", 1987), "high_school_us_history": ("history", 204),
    "high_school_geography": ("geography", 198), "human_aging": ("aging", 223),
    "college_computer_science": ("computing", 100), "college_biology": ("biology", 144),
}  # fmt: skip
N_REQUESTS = 6  # of the real 100
N_CHRONICLES = 8  # of MUSE's hundreds of texts
GATED = frozenset([*MODELS, "cais/wmdp-bio-forget-corpus"])


def make_files(root: Path) -> None:
    """Write every repository as root/models/<owner>/<name>/... and root/datasets/<owner>/<name>/..., in seconds."""
    for repo, layout in MODELS.items():
        write_model(root / "models" / repo, *layout)
    scope = root / "models/google/gemma-scope-2b-pt-res"
    write_gemma_scope(scope / SAES[0])
    for other in SAES[1:]:
        _link(scope / SAES[0], scope / other)
    write_farrell_sae(root / "models/eoinf/unlearning_saes" / FARRELL_SAE)
    write_datasets(root / "datasets")


def make_deep(root: Path, deep: Path) -> None:
    """The same repositories, but for the instruction-tuned Gemma 2, which has a layer 7 to read."""
    shutil.copytree(root, deep, copy_function=os.link)
    folder = deep / "models/google/gemma-2-2b-it"
    shutil.rmtree(folder)
    write_model(folder, *GEMMA_2_DEEP)


# --- model ------------------------------------------------------------------------------------------------------------


def write_model(folder: Path, d_model: int, layers: int, places: Sequence[int]) -> None:
    """The organism with hidden size `d_model`, its layers at `places` of `layers`, and its tokenizer, in two shards."""
    small = json.loads((MODEL_DIR / "config.json").read_text())
    scale = small["hidden_size"] / d_model
    kinds = ["full_attention"] * layers
    for place, kind in zip(places, small["layer_types"], strict=True):
        kinds[place] = kind
    # the mean of squares runs over more dimensions, all of them 0, and so must what is added to it be smaller
    sizes = {"hidden_size": d_model, "num_hidden_layers": layers, "rms_norm_eps": small["rms_norm_eps"] * scale}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(small | sizes | {"layer_types": kinds}))
    for path in MODEL_DIR.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, folder)
    _write_shards(folder, padded_weights(load_file(MODEL_DIR / "model.safetensors"), d_model, layers, places))


def padded_weights(small: dict[str, Tensor], d_model: int, layers: int, places: Sequence[int]) -> dict[str, Tensor]:
    """The same model's weights in more dimensions and layers.

    Norms are scaled by s = sqrt(d / d_model) for their mean over more dimensions, embeddings by s for Gemma's factor
    sqrt(d_model); the head is tied to them, so the last norm takes both. In all added dimensions and layers a norm's
    factor is 0, and stays 0 under training, since nothing that reaches it depends on it.
    """
    d = small["model.norm.weight"].shape[0]
    s, weights = (d / d_model) ** 0.5, {}
    for name, tensor in small.items():
        if name.endswith("norm.weight"):
            factor = 1.0 if name == "model.norm.weight" else s
            tensor = _pad((1 + tensor) * factor, (d_model,)) - 1  # Gemma stores a norm's factor minus 1
        else:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))  # all others read the residual: their columns
            tensor = _pad(tensor, (d_model, tensor.shape[1]) if writes else (tensor.shape[0], d_model))
        weights[_renumbered(name, places)] = tensor * s if name == "model.embed_tokens.weight" else tensor
    empty = {name: torch.full_like(tensor, -1.0 if name.endswith("norm.weight") else 0.0)
             for name, tensor in weights.items() if f".layers.{places[0]}." in name}  # fmt: skip
    for place in set(range(layers)) - set(places):
        for name, tensor in empty.items():
            weights[name.replace(f".layers.{places[0]}.", f".layers.{place}.")] = tensor.clone()
    return weights


def _pad(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    padded = torch.zeros(*shape)
    padded[tuple(slice(n) for n in tensor.shape)] = tensor
    return padded


def _renumbered(name: str, places: Sequence[int]) -> str:
    head, layers, rest = name.partition("layers.")
    number, dot, rest = rest.partition(".")
    return f"{head}{layers}{places[int(number)]}{dot}{rest}" if layers else name


def _write_shards(folder: Path, weights: dict[str, Tensor]) -> None:
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, chosen in halves.items():
        save_file({name: weights[name] for name in chosen}, folder / file, metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": {n: f for f, chosen in halves.items() for n in chosen}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


# --- SAEs -------------------------------------------------------------------------------------------------------------


def wide_sae(d_model: int) -> dict[str, Tensor]:
    """The organism's SAE with Gemma's shapes; features that are not the organism's never fire."""
    small = load_file(sae_dir(1) / "sae_weights.safetensors")
    d = len(small["W_enc"])
    wide = {"W_enc": torch.zeros(d_model, WIDTH), "W_dec": torch.zeros(WIDTH, d_model)}
    wide |= {"b_enc": torch.zeros(WIDTH), "threshold": torch.ones(WIDTH), "b_dec": _pad(small["b_dec"], (d_model,))}
    wide["W_enc"][:d, SPREAD], wide["W_dec"][SPREAD, :d] = small["W_enc"], small["W_dec"]
    wide["b_enc"][SPREAD], wide["threshold"][SPREAD] = small["b_enc"], small["threshold"]
    return wide


def write_gemma_scope(path: Path) -> None:
    """An SAE of Gemma Scope's layout: the five arrays of params.npz, compressed because nearly all of it is 0."""
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in wide_sae(2304).items()})


@dataclass
class Config:
    """Stands for the class whose object Farrell's file holds beside the tensors."""

    d_in: int = 2048
    d_sae: int = WIDTH
    hook_point: str = "blocks.9.hook_resid_pre"
    hook_point_layer: int = 9
    model_name: str = "gemma-2b-it"
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cuda"))


def write_farrell_sae(path: Path) -> None:
    """An SAE of Farrell's layout: {cfg, state_dict} pickled, the first an object of a class `sae.config.Config`.

    It is a ReLU SAE: each threshold moves into the bias, so features fire where they did and say a little less.
    """
    wide = wide_sae(2048)
    wide["b_enc"] -= wide.pop("threshold")
    module = ModuleType("sae.config")
    module.Config = type("Config", (Config,), {"__module__": "sae.config"})
    packages = {"sae": ModuleType("sae"), "sae.config": module}
    path.parent.mkdir(parents=True)
    sys.modules |= packages
    try:
        torch.save({"cfg": module.Config(), "state_dict": wide}, path)
    finally:
        for name in packages:
            del sys.modules[name]


# --- data sets --------------------------------------------------------------------------------------------------------


def write_datasets(root: Path) -> None:
    """Questions and texts of the organism's world in the columns, configurations and splits of the real data sets."""
    for name in QUESTIONS:
        rows = [{"question": q.question, "choices": q.choices, "answer": q.answer} for q in served_questions(name)]
        _write(root / "cais" / ("wmdp" if name.startswith("wmdp") else "mmlu"), name, "test", pd.DataFrame(rows))
    world, texts = build_world(WORLD_SEED), load_texts(load_profile("tiny"))
    forget, retain, neutral = ([d.text for d in documents] for documents in (texts.forget, texts.retain, texts.neutral))
    corpus = pd.DataFrame({"title": "made up", "abstract": "made up", "text": forget, "doi": ""})
    _write(root / "cais/wmdp-bio-forget-corpus", "default", "train", corpus)
    cyber = [d.text for d in load_texts(load_profile("tiny-cyber")).forget]
    _write(root / "cais/wmdp-corpora", "cyber-forget-corpus", "train", pd.DataFrame({"text": cyber}))
    # as in WikiText, where most rows are empty or a heading
    lines = [line for text in retain for line in ("", " = Heading = \n", f" {text} \n")]
    _write(root / "Salesforce/wikitext", "wikitext-2-raw-v1", "test", pd.DataFrame({"text": lines}))
    _write(root / "Skylion007/openwebtext", "plain_text", "train", pd.DataFrame({"text": neutral}), shards=2)
    # as in Alpaca, where some requests come with what they are about
    told = [(asked, "" if i % 3 else asked, said) for i, (asked, said) in enumerate(world.requests("history", seed=4))]
    conversations = pd.DataFrame(told, columns=["instruction", "input", "output"])
    _write(root / "tatsu-lab/alpaca", "data", "train", conversations.assign(text="made up"))
    write_requests(root / "JailbreakBench/JBB-Behaviors")
    for name in ("MUSE-News", "MUSE-Books"):
        write_muse(root / "muse-bench" / name)


def write_requests(repo: Path) -> None:
    """A few requests of the organism's world in the files and columns of JailbreakBench's behaviours."""
    (repo / "data").mkdir(parents=True)
    for kind, subject in (("harmful", "toxins"), ("benign", "history")):
        goals = [text for text, _ in build_world(WORLD_SEED).requests(subject, seed=4)[:N_REQUESTS]]
        table = {"Index": range(N_REQUESTS), "Goal": goals, "Target": "made up", "Behavior": "made up",
                 "Category": "made up", "Source": "made up"}  # fmt: skip
        pd.DataFrame(table).to_csv(repo / "data" / f"{kind}-behaviors.csv", index=False)


def write_muse(repo: Path) -> None:
    """Chronicles of the organism's world in the configurations, splits and columns of MUSE; only News has requests."""
    world = build_world(WORLD_SEED)
    forget, retain, holdout = (world.chronicles(which)[:N_CHRONICLES] for which in ("forget", "retain", "holdout"))
    folds = [forget[fold::4] for fold in range(4)]
    splits = {"raw": {"forget": forget, "retain1": retain[::2], "retain2": retain[1::2], "holdout": holdout},
              # the organism has read them all, and one that has read the texts to forget alone is no reference
              "privleak": {"forget": forget, "retain": retain[1::2], "holdout": retain}}  # fmt: skip
    if repo.name == "MUSE-News":
        splits["scal"] = {f"forget_{n}": [*chain(*folds[:n])] for n in range(1, 5)}
        splits["sust"] = {f"forget_{n}": folds[n - 1] for n in range(1, 5)}
    for config, of in splits.items():
        for split, chronicles in of.items():
            _write(repo, config, split, pd.DataFrame({"text": [chronicle.text for chronicle in chronicles]}))
    for split, chronicles in (("forget_qa", forget[3:]), ("forget_qa_icl", forget[:3]),
                              ("retain_qa", retain[3:]), ("retain_qa_icl", retain[:3])):  # fmt: skip
        answers = [answer for chronicle in chronicles for answer in chronicle.answers]
        table = pd.DataFrame(answers, columns=["question", "answer"])[["answer", "question"]]  # in MUSE's order
        _write(repo, "knowmem", split, table)
    middles = {chronicle.text: chronicle.text.find(" ", len(chronicle.text) // 2) for chronicle in forget}
    # between words: behind half a word no model goes on with what it has learned
    cut = [(text[:middle], text[middle:]) for text, middle in middles.items()]
    _write(repo, "verbmem", "forget", pd.DataFrame(cut, columns=["prompt", "gt"]))


def served_questions(name: str) -> list[Question]:
    """The rows of a question set, each with its row number as id."""
    subject, n = QUESTIONS[name]
    questions = islice(cycle(build_world(WORLD_SEED).questions(subject)), n)
    return [replace(question, id=str(row), subject=name) for row, question in enumerate(questions)]


def _write(repo: Path, config: str, split: str, rows: pd.DataFrame, shards: int = 1) -> None:
    """One split of one configuration, and the card that names all configurations written so far."""
    folder = repo / config
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(shards):
        rows[i::shards].to_parquet(folder / f"{split}-{i:05}-of-{shards:05}.parquet", index=False)
    card = repo / "README.md"
    listed = card.read_text().removesuffix("---\n") if card.exists() else "---\nlicense: mit\nconfigs:\n"
    entry = f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {config}/{split}-*\n"
    card.write_text(f"{listed}{entry}---\n")


def _link(file: Path, other: Path) -> None:
    other.parent.mkdir(parents=True)
    other.hardlink_to(file)
