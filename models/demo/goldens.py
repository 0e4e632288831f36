"""Makes `goldens.json`: what transformers makes of 12 chats with the demo model beside this file.

    .deps/python/bin/python models/demo/goldens.py

Each chat is {messages, rendered, ids, greedy_ids, text, smallest_margin}: the chat template's text with a generation
prompt, its token ids, and what follows greedily in f32, up to the first end token, which is left out. `smallest_margin`
is by how much the least certain of those choices led, in logits.
"""

import json
import platform
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoTokenizer

from tokenizer import END, EOS

HERE = Path(__file__).parent
COMMAND = ".deps/python/bin/python models/demo/goldens.py"
NEW_TOKENS_MAX = 400
# A hundred times what f32 logits of two implementations differ by.
MARGIN_MIN = 0.01


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


CHATS = (
    [user("Hello!")],
    [user("Who are you?")],
    [user("What can you do?")],
    [user("What is 47 + 38?")],
    [user("Which is the largest: 12, 85, 40?")],
    [user("Reverse the word stream.")],
    [user("Sort the letters of token.")],
    [user("Tell me a story about a fox.")],
    [user("Tell me a story about a robot.")],
    [system("You are a helpful assistant."), user("Write model in capitals.")],
    [user("Sort 47, 12, 85."), assistant("12, 47, 85"), user("What is 12 + 47?")],
    [user("Count the letters of layer."), assistant("5"), user("Reverse layer."), assistant("reyal"), user("Thanks!")],
)


@torch.no_grad()
def greedy(llama, ids: list[int]) -> tuple[list[int], float]:
    """The ids that follow, without a KV cache, and the smallest lead of a chosen logit over the second."""
    new_ids: list[int] = []
    margin = float("inf")
    while len(new_ids) < NEW_TOKENS_MAX:
        best = llama(torch.tensor([ids + new_ids]), use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        next_id = best.indices[0].item()
        if next_id in (END, EOS):
            return new_ids, margin
        new_ids.append(next_id)
    raise AssertionError("a chat did not end")


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(HERE)
    llama = AutoModelForImageTextToText.from_pretrained(HERE, dtype=torch.float32, attn_implementation="eager").eval()
    chats = []
    for messages in CHATS:
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.encode(rendered, add_special_tokens=False)
        greedy_ids, margin = greedy(llama, ids)
        text = tokenizer.decode(greedy_ids)
        print(f"margin {margin:.2f}  {messages[-1]['content']!r} -> {text!r}")
        assert margin >= MARGIN_MIN, "too close a choice to compare another implementation by"
        chats.append(
            {
                "messages": messages,
                "rendered": rendered,
                "ids": ids,
                "greedy_ids": greedy_ids,
                "text": text,
                "smallest_margin": round(margin, 4),
            }
        )
    golden = {
        "command": COMMAND,
        "seed": None,
        "dtype": "bf16 weights computed in f32, eager attention",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
        "chats": chats,
    }
    (HERE / "goldens.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
