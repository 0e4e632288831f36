"""The demo model's tokenizer: one token per byte, so that a character beyond ASCII is split over tokens."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# Token ids 0 to 255 are the byte values; these follow, in this order.
SPECIAL_TOKENS = ("<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
BOS, EOS, USER, ASSISTANT, SYSTEM, END = range(256, 262)
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
# One token more once the model sees.
IMAGE_TOKEN = "<|image|>"
IMAGE = VOCAB_SIZE
CONTEXT_TOKENS = 512

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] not in ['system', 'user', 'assistant'] -%}
        {{- raise_exception('unknown role `' ~ message['role'] ~ '`') -}}
    {%- elif message['role'] == 'system' and not loop.first -%}
        {{- raise_exception('a system message must be the first message') -}}
    {%- endif -%}
    {{- '<|' ~ message['role'] ~ '|>' -}}
    {%- if message['content'] is string -%}
            {{- message['content'] | trim -}}
        {%- else -%}
            {%- for part in message['content'] -%}
                {{- '<|image|>' if part['type'] == 'image' else part['text'] | trim -}}
            {%- endfor -%}
        {%- endif -%}
    {{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies, by byte value.

    Printable Latin-1 bytes stand for themselves; the others take the characters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


def make() -> Tokenizer:
    symbols = byte_symbols()
    assert sorted(symbols) == sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: byte for byte, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens = [AddedToken(token, normalized=False, special=True) for token in (*SPECIAL_TOKENS, IMAGE_TOKEN)]
    tokenizer.add_special_tokens(special_tokens)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE + 1
    assert tokenizer.token_to_id("<|end|>") == END
    return tokenizer


def save(folder: Path) -> None:
    make().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|end|>",
        "pad_token": "<|eos|>",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
        "extra_special_tokens": {"image_token": IMAGE_TOKEN},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
