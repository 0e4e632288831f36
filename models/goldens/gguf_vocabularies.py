"""Writes gguf_vocabularies.json: small vocabularies as GGUF keeps them, and the ids of their original tokenizers.

The vocabularies are trained here by tokenizers' BPE trainer. The ids come from transformers' own tokenizer
classes (GPT2Tokenizer, Qwen2Tokenizer, GemmaTokenizer); for the older form of LlamaTokenizer, which transformers 5
no longer has as a class, and for Llama 3, which never had one, from tokenizers set up as their files are.

    python models/goldens/gguf_vocabularies.py

Made with transformers 5.24.0 and tokenizers 0.23.2.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GemmaTokenizer, GPT2Tokenizer, Qwen2Tokenizer
from transformers.tokenization_utils_base import generate_merges

HERE = Path(__file__).parent
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
TEXTS = [
    "",
    " ",
    "   ",
    "Once upon a time, a cat lived by the sea.",
    " leading and trailing ",
    "two  three   four    spaces",
    "tabs\tand\nnew\n\nlines\r\n  indented",
    "I'm sure they'll say it's WE'RE and YOU'VE",
    "1 12 123 1234 12345 3.14 ½ ² 1,000",
    "日本語の文と中文。한국어",
    "naïve café cafe\u0301 ΑΩ",
    "🙂🙃 👩‍👩‍👧 \u200b",
    "<s>bos inside</s> the <|end|>text <|user|> <unk>",
    "<|endoftext|><|im_start|>user\nhi<|im_end|>\n",
    "<0x0A> is text, not a byte",
    "\u0000\u007f\u0080\ufffd",
    "(a+b)*c == d; // why?! …",
    "▁written▁marks",
]


def corpus():
    lines = (HERE.parent / "demo" / "heldout.jsonl").read_text().splitlines()[:400]
    # Special tokens must not be learned a second time, as ordinary ones.
    return lines + [text for text in TEXTS if "<" not in text] * 3


def trained(pre_tokenizer, alphabet, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    return vocab, [tuple(merge) for merge in model["merges"]]


def byte_level_fields(pre, tokens, merges, control, **more):
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in control else NORMAL for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        **more,
    }


def byte_level(name, pre_tokenizer, control, make, **more):
    vocab, merges = trained(pre_tokenizer, pre_tokenizers.ByteLevel.alphabet(), 640)
    tokens = vocab + control
    assert len(vocab) == 640 and len(set(tokens)) == len(tokens)
    encode = make({token: id for id, token in enumerate(tokens)}, merges, control)
    return golden(byte_level_fields(name, tokens, merges, control, **more), encode)


def golden(fields, encode):
    return {"fields": fields, "ids": [encode(text) for text in TEXTS]}


def gpt_2(vocab, merges, control):
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)
    return lambda text: tokenizer(text)["input_ids"]


def qwen_2(vocab, merges, control):
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": control})
    return lambda text: tokenizer(text)["input_ids"]


def llama_3(vocab, merges, control):
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = llama_3_words()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    bos = control[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
    )
    return lambda text: tokenizer.encode(text).ids


def llama_3_words():
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def pieces(first, user_defined):
    """Tokens, types and scores as sentencepiece lays them out: later merges score lower."""
    vocab, _ = trained(pre_tokenizers.Metaspace(), [], 500)
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = [piece for piece in vocab if piece not in user_defined]
    text = [piece for piece in vocab if len(piece) > 1] + [piece for piece in vocab if len(piece) == 1]
    # A third of the characters stay out, so that their bytes stand for them.
    text = [piece for at, piece in enumerate(text) if len(piece) > 1 or at % 3 or piece.isascii() or piece == "▁"]
    tokens = [*first, *byte_tokens, *user_defined, *text]
    assert len(set(tokens)) == len(tokens)
    types = [UNKNOWN if token == "<unk>" else CONTROL for token in first]
    types += [BYTE] * 256 + [USER_DEFINED] * len(user_defined) + [NORMAL] * len(text)
    scores = [0.0] * (len(first) + 256 + len(user_defined)) + [-float(at) for at in range(len(text))]
    return tokens, types, scores


def piece_fields(tokens, types, scores, **more):
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        **more,
    }


def llama_2():
    tokens, types, scores = pieces(["<unk>", "<s>", "</s>"], ["<|user|>"])
    vocab = {token: id for id, token in enumerate(tokens)}
    merges = generate_merges(vocab, dict(zip(tokens, scores)))
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens[:3]])
    tokenizer.add_tokens([AddedToken("<|user|>", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> <s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fields = piece_fields(tokens, types, scores, **{"tokenizer.ggml.add_eos_token": True})
    return golden(fields, lambda text: tokenizer.encode(text).ids)


def gemma():
    first = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokens, types, scores = pieces(first, ["\n\n", "<|user|>"])
    vocab = {token: id for id, token in enumerate(tokens)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=generate_merges(vocab, dict(zip(tokens, scores))))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ["\n\n", "<|user|>"]])
    ids = {"bos_token_id": 2, "eos_token_id": 1, "unknown_token_id": 3, "padding_token_id": 0}
    fields = piece_fields(
        tokens, types, scores, **{f"tokenizer.ggml.{key}": id for key, id in ids.items()},
        **{"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": False},
    )
    return golden(fields, lambda text: [2, *tokenizer(text, add_special_tokens=False)["input_ids"]])


def main():
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bos_id = {"tokenizer.ggml.bos_token_id": 640}
    vocabularies = {
        "llama 2": llama_2(),
        "gemma": gemma(),
        "gpt-2": byte_level("gpt-2", words, ["<|endoftext|>"], gpt_2),
        "qwen2": byte_level("qwen2", words, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], qwen_2),
        "llama 3": byte_level("llama-bpe", llama_3_words(), ["<|bos|>", "<|end|>"], llama_3, **bos_id),
    }
    out = {"texts": TEXTS, "vocabularies": vocabularies}
    (HERE / "gguf_vocabularies.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
