"""What a profile takes for granted about the hub, each assumption looked at on a few megabytes.

Of a model config and tokenizer are fetched, of a question set all of its rows (it is small), of a text one document,
and of an SAE the names of its files. They lie in a cache of their own, so that nobody takes them for all of it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from helpers.engine.architecture import FAMILIES, architecture_of, check_attention
from helpers.loading.data import hub_questions
from helpers.loading.hub import Hub, first_document, names_in
from helpers.loading.sources import QUESTIONS, Source, model_source, question_source, sae_source, text_source
from helpers.profiles import Profile
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from helpers.text.tokens import check_tokenizer, letter_ids, special_ids

CONFIG = ("config.json", "tokenizer*", "special_tokens_map.json", "*.jinja")


@dataclass(frozen=True)
class Assumption:
    """What is taken for granted, what was expected, what was found, and whether the two agree."""

    name: str
    expected: str
    found: str
    holds: bool


def probe(profile: Profile, cache: Path) -> list[Assumption]:
    """Every assumption that a profile of the hub makes, in the order in which a run would meet them.

    Args:
        cache: where the few files go.
    """
    found, hub, model = [], Hub(cache), replace(model_source(profile), files=CONFIG)
    form, asked, texts = profile.model.prompt_format, profile.questions, profile.texts
    layer, attention = profile.sae.layer, profile.model.attention
    expected = f"one of {', '.join(FAMILIES)}, with a layer {layer}, attention by {attention}"
    found.append(_looked(f"model {model.repo}", expected, lambda: _model(hub.fetch(model), layer, attention)))
    expected = f"BOS, EOS, letters of one token{', a chat template' if form == 'chat' else ''}"
    found.append(_looked(f"tokenizer {model.repo}", expected, lambda: _tokenizer(hub.fetch(model), form)))
    sae = sae_source(profile)
    found.append(_looked(f"SAE {profile.sae.source} {profile.sae.id}", f"files {sae.files[0]}", lambda: _files(sae)))
    if asked.source == "hub":
        for name in (asked.forget, asked.near, *asked.side_effect):
            rows = question_source(name).rows
            expected = f"{rows} rows of question, four choices and answer 0 to 3"
            found.append(_looked(f"questions {name}", expected, partial(_questions, name, hub)))
        side, bos = asked.side_effect[0], "exactly one BOS, at the start"
        found.append(_looked(f"prompt of {side}", bos, lambda: _prompt(hub, hub.fetch(model), side, form)))
    if texts.source == "hub":
        fillers = profile.prompt_attacks.fillers.values()
        for name in dict.fromkeys((texts.forget, texts.retain, texts.neutral, *fillers)):
            if name not in QUESTIONS:
                text = text_source(name)
                expected = f"text in {' and '.join(f'`{column}`' for column in text.columns)}"
                found.append(_looked(f"text {name}", expected, partial(_document, text)))
    return found


def _looked(name: str, expected: str, look: Callable[[], tuple[str, bool]]) -> Assumption:
    """What `look` found, or why it could not: what fails is a line, for the next assumption is looked at even so."""
    try:
        return Assumption(name, expected, *look())
    except (OSError, ValueError, KeyError) as error:
        return Assumption(name, expected, re.sub(r"\s+", " ", str(error)), False)


def _model(folder: Path, layer: int, attention: str) -> tuple[str, bool]:
    config = AutoConfig.from_pretrained(folder).get_text_config()
    check_attention(config, attention)
    shape = architecture_of(config)
    window = f", sliding window {shape.window}" if shape.window else ""
    cap = f", logits capped at {shape.logit_softcap:g}" if shape.logit_softcap else ""
    return f"{shape.family}, {shape.layers} layers of {shape.d_model}{window}{cap}", layer < shape.layers


def _tokenizer(folder: Path, form: str) -> tuple[str, bool]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_tokenizer(tokenizer, form)
    letters = letter_ids(tokenizer).tolist()
    return f"BOS {tokenizer.bos_token_id}, EOS {tokenizer.eos_token_id}, A to D {letters[0]} and {letters[1]}, " + (
        f"{len(special_ids(tokenizer))} special tokens"
    ), True  # fmt: skip


def _files(source: Source) -> tuple[str, bool]:
    names = names_in(source)
    found = [name for name in names if fnmatch(name, source.files[0])]
    # of the nearest folders that are there, for an SAE that was renamed lies beside its old place
    beside = sorted({name.rpartition("/")[0] for name in names if name.startswith(source.files[0].split("/")[0])})
    near = f"no such files; beside them are {', '.join(beside[:4])}" if beside else f"no such files among {len(names)}"
    return (", ".join(found) if found else near), bool(found)


def _questions(name: str, hub: Hub) -> tuple[str, bool]:
    found, known = hub_questions(name, hub), question_source(name).rows
    return f"{len(found)} rows, all of that form", len(found) == known


def _prompt(hub: Hub, folder: Path, subject: str, form: str) -> tuple[str, bool]:
    tokenizer, question = AutoTokenizer.from_pretrained(folder), hub_questions(subject, hub)[0]
    check_tokenizer(tokenizer, form)
    (ids,) = prompt_tokens(tokenizer, [question], ORIGINAL_ORDER, form)
    return f"{len(ids)} tokens: {ids}", ids[0] == tokenizer.bos_token_id


def _document(source: Source) -> tuple[str, bool]:
    row = first_document(source)
    parts = {column: row.get(column) for column in source.columns}
    for column, part in parts.items():
        if not isinstance(part, str):
            return f"{type(part).__name__} in `{column}`, columns are {', '.join(row)}", False
    characters = sum(len(str(part)) for part in parts.values())
    return f"a first document of {characters} characters, columns {', '.join(row)}", True
