"""A word-level tokenizer with Gemma's special tokens and chat template.

As in Gemma, a word after a space and the same word without one are two tokens, so that decoding gives back the text.
A name is two tokens, stem and ending, and a choice's letter with its dot is one.
"""

import re
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from helpers.organism.world import NEIGHBOURS, SUBJECTS, World, load_words
from helpers.text.questions import LETTERS, PROMPT_FORMATS, frame_text, header, question_text

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")

# Says the same as Gemma's template: BOS once, each turn between its marks, "assistant" called "model".
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def split_pattern(stems: Sequence[str], endings: Sequence[str]) -> str:
    """The regular expression of one token: stem, ending, lettered choice, word, digit, mark or white space."""
    stem, ending = "|".join(stems), "|".join(endings)
    return (
        rf" ?(?:{stem})(?=(?:{ending})\b)|(?<=[a-z])(?:{ending})\b|(?<![A-Za-z])[A-D]\."
        r"| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\n| "
    )


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer whose vocabulary covers every text and prompt of the world.

    It adds one BOS unless told `add_special_tokens=False`; unknown words become '<unk>'.
    """
    words = load_words()
    pattern = split_pattern(words.stems, words.endings)
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *_tokens(_all_texts(world), pattern)))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    tokenizer = _wrap(backend)
    framed = (frame_text(tokenizer, "", prompt_format) for prompt_format in PROMPT_FORMATS)
    missing = set(_tokens(map(_without_specials, framed), pattern)) - vocabulary.keys()
    if missing:
        raise ValueError(f"the vocabulary lacks tokens of the prompt's frame: {sorted(missing)}")
    return tokenizer


def _wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _all_texts(world: World) -> list[str]:
    """Every word of the world with and without a space before it, and every mark the prompts use."""
    words = load_words()
    texts = ["\n \nuser\nmodel\n<A> (B) Answer: (C) Answer: A B C D Question:"]
    texts += [letter + mark for letter in LETTERS for mark in ("", ".", ")", "\n")]
    texts += [f"Find the word {value}." for s in words.subjects for a in s.attributes for value in a.values]
    texts += [header(subject) for subject in SUBJECTS]
    texts += [
        t.format(e="", v="") for s in words.subjects for a in s.attributes for t in (*a.documents, a.exam, a.short)
    ]
    texts += ["Chronicle of", *(s.thing for s in words.subjects)]
    texts += [t for table in (words.prose, words.help, words.chronicles) for pool in table.values() for t in pool]
    texts += [stem + ending for stem in words.stems for ending in words.endings]
    texts = [re.sub(r"{\w+}", "", text) for text in texts]
    return texts + [question_text(q) for subject in NEIGHBOURS for q in world.questions(subject)]


def _tokens(texts: Iterable[str], pattern: str) -> list[str]:
    """The distinct tokens of the texts, sorted; each word also in its other form, with or without a space."""
    found = {token for text in texts for token in re.findall(pattern, text)}
    bare = {token.strip(" ") for token in found} - {""}
    spaced = {" " + token for token in bare if token != "\n" and not re.fullmatch(r"[A-D]\.", token)}
    return sorted(found | bare | spaced)


def _without_specials(text: str) -> str:
    return re.sub("|".join(map(re.escape, SPECIAL_TOKENS)), "\n", text)
