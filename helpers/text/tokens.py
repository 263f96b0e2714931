"""What is asked of a tokenizer: its special tokens, the answer letters, and a chat form that is the same every day."""

from torch import Tensor, tensor

from helpers.text.questions import LETTERS


def special_ids(tokenizer) -> list[int]:
    """Ids of all tokens that are no text: BOS, EOS, padding and chat marks, sorted.

    Llama's tokenizer counts its chat marks among the added special tokens only, not among `all_special_ids`.
    """
    added = (i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    return sorted({*tokenizer.all_special_ids, *added})


def letter_ids(tokenizer) -> Tensor:
    """Token ids of the four answer letters, [2, 4]: 'A' to 'D' without a space before them and with one.

    Raises:
        ValueError: a letter is not one token.
    """
    ids = [[tokenizer.encode(space + letter, add_special_tokens=False) for letter in LETTERS] for space in ("", " ")]
    if any(len(token) != 1 for row in ids for token in row):
        raise ValueError(f"every answer letter must be one token, got {ids}")
    return tensor(ids)[..., 0]


def check_tokenizer(tokenizer, prompt_format: str) -> None:
    """Make sure that prompts can be made with a tokenizer. One without padding pads with EOS, which no mask shows.

    Raises:
        ValueError: it has no BOS or EOS, no chat template where one is asked for or one that writes today's date, or an
            answer letter that is not one token.
    """
    missing = [name for name in ("bos_token_id", "eos_token_id") if getattr(tokenizer, name) is None]
    if missing:
        raise ValueError(f"the tokenizer has no {missing[0].removesuffix('_id')}, with which rows begin and texts end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    letter_ids(tokenizer)
    if prompt_format != "chat":
        return
    template = tokenizer.chat_template
    if not template:
        raise ValueError("the tokenizer has no chat template: set model.prompt_format to 'plain'")
    if "strftime_now" in template:
        raise ValueError("the chat template writes today's date, so that prompts would differ from day to day")
