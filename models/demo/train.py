"""Trains the demo model from nothing, exports it beside this file, and prints its accuracy on held-out cases.

    .deps/python/bin/python models/demo/train.py               # trains, exports, evaluates
    .deps/python/bin/python models/demo/train.py --eval-only   # evaluates the files beside this one
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import checkpoint
import corpus
import scenes
import tokenizer as tok
import train_scenes
import train_text
from corpus import Conversation, Turn
from evaluate import Accuracy, accuracy
from samples import encode
from train_tower import train_tower
from training import spawn_workers

HERE = Path(__file__).parent
BETWEEN_PHASES = HERE.parents[1] / "target" / "demo-model"

# --- Phases -----------------------------------------------------------------------------------------------------------


def train(folder: Path, first_phase: int) -> None:
    """The decoder without pictures, the eye, the decoder with pictures; exports what comes out to `folder`."""
    BETWEEN_PHASES.mkdir(parents=True, exist_ok=True)
    text, eye, whole = (BETWEEN_PHASES / f"{name}.safetensors" for name in ("text", "eye", "whole"))
    phases: list[tuple[Callable, tuple]] = []
    for index, phase in enumerate(train_text.PHASES):
        phases.append((train_text.train_text, (phase, text if index > 0 else None, text)))
    phases.append((train_tower, (eye,)))
    for index, phase in enumerate(train_scenes.PHASES):
        phases.append((train_scenes.train_scenes, (phase, eye, whole if index > 0 else text, whole)))
    for index, (train_phase, arguments) in list(enumerate(phases))[first_phase:]:
        print(f"phase {index} of {len(phases)}: {train_phase.__name__}", flush=True)
        spawn_workers(train_phase, *arguments)
    checkpoint.export(whole, folder)


# --- Held-out cases ---------------------------------------------------------------------------------------------------


def text_lines(held_out: corpus.HeldOut) -> list[dict[str, str]]:
    return [{"skill": case.skill, "prompt": case.prompt, "answer": case.answer} for case in held_out.test]


def scene_lines(held_out: scenes.HeldOut) -> list[dict[str, str]]:
    return [
        {
            "skill": case.turn.skill,
            "picture": picture_name(case),
            "prompt": case.turn.prompt,
            "answer": case.turn.answer,
        }
        for case in held_out.test
    ]


def picture_name(case: scenes.Case) -> str:
    return f"scenes/{case.picture:02}.png"


def write_lines(lines: list[dict[str, str]], file: Path) -> None:
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def write_scenes(held_out: scenes.HeldOut, folder: Path) -> None:
    write_lines(scene_lines(held_out), folder / "scenes.jsonl")
    (folder / "scenes").mkdir(exist_ok=True)
    for case in held_out.test:
        scenes.draw_picture(case.scene, case.picture).save(folder / picture_name(case), optimize=True)


def read_lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


# --- The figures ------------------------------------------------------------------------------------------------------


class Exported:
    """The exported files as transformers reads them."""

    def __init__(self, folder: Path, dtype: torch.dtype):
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        self.folder = folder
        self.dtype = dtype
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
        # Pillow's resampling, as vision-encode has it.
        self.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def encode_chat(self, turns: list[Turn], has_picture: bool = False) -> list[int]:
        messages: list[dict] = Conversation(None, turns).messages()[:-1]
        if has_picture:
            parts = [{"type": "image"}, {"type": "text", "text": messages[0]["content"]}]
            messages[0] = {"role": "user", "content": parts}
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        text = text.replace(tok.IMAGE_TOKEN, tok.IMAGE_TOKEN * scenes.N_CELLS)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def pixels(self, names: list[str]) -> Tensor:
        pictures = [Image.open(self.folder / name) for name in names]
        return self.image_processor(pictures, return_tensors="pt")["pixel_values"].to(self.dtype)

    def next_logits(self, ids: Tensor, **pixels: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False, **pixels).logits[:, -1]


def evaluate_text(exported: dict[str, Exported], cases: list[Turn]) -> dict[str, Accuracy]:
    """Accuracy through the chat template, by column of the table."""

    def measure(model: Exported, prompts: list[list[int]]) -> Accuracy:
        return accuracy(lambda ids, _: model.next_logits(ids), cases, prompts)

    encode_chat = exported["f32"].encode_chat
    first_turns = [encode_chat([case]) for case in cases]
    # Cases are grouped by skill, so the question before is always of another skill.
    n_shift = corpus.HELD_OUT_CASES_PER_SKILL
    second_turns = [encode_chat([cases[i - n_shift], case]) for i, case in enumerate(cases)]
    columns = {name: measure(model, first_turns) for name, model in exported.items()}
    return columns | {"second turn, f32": measure(exported["f32"], second_turns)}


def evaluate_scenes(exported: dict[str, Exported], cases: list[scenes.Case]) -> dict[str, Accuracy]:
    """Accuracy on the pictures of the folder; the second turn follows another question about the same picture."""
    turns = [case.turn for case in cases]

    def measure(model: Exported, prompts: list[list[int]]) -> Accuracy:
        pixels = model.pixels([picture_name(case) for case in cases])
        return accuracy(lambda ids, indices: model.next_logits(ids, pixel_values=pixels[indices]), turns, prompts)

    encode_chat = exported["f32"].encode_chat
    first_turns = [encode_chat([turn], has_picture=True) for turn in turns]
    # The cases of a scene follow each other.
    n_skills = len(scenes.SKILLS)
    second_turns = [
        encode_chat([turns[i // n_skills * n_skills + (i + 1) % n_skills], turn], has_picture=True)
        for i, turn in enumerate(turns)
    ]
    columns = {name: measure(model, first_turns) for name, model in exported.items()}
    return columns | {"second turn, f32": measure(exported["f32"], second_turns)}


def check_encoding(tokenizer) -> None:
    """The samples must be what the shipped chat template and tokenizer make of their conversations."""
    for conversation in islice(corpus.conversations(0, corpus.BROAD, without=set()), 500):
        expected = encode(conversation).ids
        if len(expected) > tok.CONTEXT_TOKENS:
            continue
        text = tokenizer.apply_chat_template(conversation.messages(), tokenize=False)
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == expected, text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, text


def print_table(accuracies: dict[str, Accuracy], overlaps_by_skill: Counter[str]) -> None:
    print(f"| skill | cases | {' | '.join(f'{column} %' for column in accuracies)} | overlaps |")
    print("|---" * (len(accuracies) + 3) + "|")
    for skill, (_, n_cases) in accuracies["f32"].items():
        percentages = [f"{100 * column[skill][0] / n_cases:.1f}" for column in accuracies.values()]
        print(f"| {skill} | {n_cases} | {' | '.join(percentages)} | {overlaps_by_skill[skill]} |")
    print(f"{sum(overlaps_by_skill.values())} overlaps", flush=True)


def evaluate(folder: Path, text: corpus.HeldOut, seen: scenes.HeldOut) -> None:
    assert read_lines(folder / "heldout.jsonl") == text_lines(text), "heldout.jsonl is not what corpus.py holds out"
    assert read_lines(folder / "scenes.jsonl") == scene_lines(seen), "scenes.jsonl is not what scenes.py holds out"
    exported = {"f32": Exported(folder, torch.float32), "bf16": Exported(folder, torch.bfloat16)}
    check_encoding(exported["f32"].tokenizer)
    # Held-out scenes are in no sample: they are left out as scenes are drawn.
    print_table(evaluate_scenes(exported, seen.test), Counter())
    print_table(evaluate_text(exported, text.test), train_text.overlaps(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval-only", action="store_true", help="train nothing")
    parser.add_argument("--from-phase", type=int, default=0, help="continue with this phase (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the checkpoint is (default: %(default)s)")
    arguments = parser.parse_args()

    text, seen = corpus.held_out(), scenes.held_out()
    if not arguments.eval_only:
        train(arguments.folder, arguments.from_phase)
        write_lines(text_lines(text), arguments.folder / "heldout.jsonl")
        write_scenes(seen, arguments.folder)
    evaluate(arguments.folder, text, seen)


if __name__ == "__main__":
    main()
