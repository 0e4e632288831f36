"""Trains the demo model from nothing, exports it beside this file, and prints its accuracy on held-out cases.

    .deps/python/bin/python models/demo/train.py               # trains, exports, evaluates
    .deps/python/bin/python models/demo/train.py --eval-only   # evaluates the files beside this one
"""

import argparse
import ctypes
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

import corpus
import tokenizer as tok
from corpus import Conversation, Turn
from evaluate import Accuracy, accuracy
from model import Llama, Shape

HERE = Path(__file__).parent
SHAPE = Shape(vocab_size=tok.VOCAB_SIZE)
# Processes of one thread each: two threads of one process would wait for each other at every operation.
WORKERS = 2


@dataclass(frozen=True)
class Phase:
    """A part of the training. The next part takes its exported weights, and a fresh optimizer.

    The learning rate is that of a run of `schedule_steps`, which may be more than are made. `story_weight` is what a
    story's token counts for in the loss: they are many and mostly a matter of taste, where a sum's are few and must be
    right.
    """

    seed: int
    mix: corpus.Mix
    steps: int
    schedule_steps: int
    learning_rate: float
    story_weight: float


PHASES = (
    Phase(seed=20, mix=corpus.BROAD, steps=2000, schedule_steps=4000, learning_rate=2.5e-3, story_weight=0.1),
    Phase(seed=21, mix=corpus.DRILL, steps=2400, schedule_steps=2400, learning_rate=2.5e-3, story_weight=0.1),
)
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.05
BATCH_TOKENS_PER_WORKER = 2048
BATCHES_SORTED_TOGETHER = 128
STEPS_BETWEEN_VALIDATIONS = 400

# --- Batches ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """`weights[i]` is what predicting `ids[i]` counts for in the loss: 0 for everything but answers."""

    ids: list[int]
    weights: list[float]


def encode(conversation: Conversation, story_weight: float = 1.0) -> Sample:
    """The token ids the chat template gives; `check_encoding` compares the two."""
    ids, weights = [tok.BOS], [0.0]

    def add(role: int, text: str, weight: float) -> None:
        content = [*text.encode(), tok.END]
        ids.extend((role, *content))
        weights.extend((0.0, *(weight for _ in content)))

    if conversation.system:
        add(tok.SYSTEM, conversation.system, 0.0)
    for turn in conversation.turns:
        add(tok.USER, turn.prompt, 0.0)
        add(tok.ASSISTANT, turn.answer, story_weight if turn.skill == "story" else 1.0)
    return Sample(ids, weights)


def encode_question(prompt: str) -> list[int]:
    return [tok.BOS, tok.USER, *prompt.encode(), tok.END, tok.ASSISTANT]


class Corpus:
    """The samples of one phase, counting the questions that have a held-out input."""

    def __init__(self, phase: Phase, held_out: corpus.HeldOut):
        self.phase = phase
        self.held_out_inputs = held_out.inputs()
        self.overlaps_by_skill: Counter[str] = Counter()
        self.n_conversations = 0

    def samples(self) -> Iterator[Sample]:
        for conversation in corpus.conversations(self.phase.seed, self.phase.mix, without=self.held_out_inputs):
            sample = encode(conversation, self.phase.story_weight)
            if len(sample.ids) > tok.CONTEXT_TOKENS:
                continue
            self.n_conversations += 1
            for turn in conversation.turns:
                if turn.input in self.held_out_inputs:
                    self.overlaps_by_skill[turn.skill] += 1
            yield sample

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids and loss weights, each `[n_samples, n_tokens]`, of samples of similar length."""
        rng = random.Random(self.phase.seed)
        samples = self.samples()
        while True:
            batches: list[list[Sample]] = [[]]
            n_tokens_pooled = 0
            pool: list[Sample] = []
            while n_tokens_pooled < BATCHES_SORTED_TOGETHER * BATCH_TOKENS_PER_WORKER:
                pool.append(next(samples))
                n_tokens_pooled += len(pool[-1].ids)
            for sample in sorted(pool, key=lambda sample: len(sample.ids)):
                if (len(batches[-1]) + 1) * len(sample.ids) > BATCH_TOKENS_PER_WORKER:
                    batches.append([])
                batches[-1].append(sample)
            rng.shuffle(batches)
            yield from (pad(batch) for batch in batches)


def pad(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    n_tokens = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), n_tokens), tok.EOS)
    weights = torch.zeros(len(samples), n_tokens)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        weights[row, : len(sample.ids)] = torch.tensor(sample.weights)
    return ids, weights


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed: giving it back and faulting it in again costs a third of a step."""
    mmap_threshold, trim_threshold = -3, -1
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


# --- Training ---------------------------------------------------------------------------------------------------------


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def batch_loss(llama: Llama, hidden_of: Callable[[Tensor], Tensor], ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy, in nats a token, over the tokens with a weight.

    `hidden_of` is `llama.hidden`, compiled.
    """
    with autocast():
        hidden = hidden_of(ids[:, :-1])
        targets, weights = ids[:, 1:], weights[:, 1:]
        counts = weights > 0
        logits = llama.logits(hidden[counts])
    losses = F.cross_entropy(logits.float(), targets[counts], reduction="none")
    return (losses * weights[counts]).sum() / weights.sum()


def learning_rate(phase: Phase, step: int) -> float:
    """Linear warm-up, then half a cosine down to 2 %."""
    if step < WARMUP_STEPS:
        return phase.learning_rate * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / (phase.schedule_steps - WARMUP_STEPS)
    return phase.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(llama: Llama) -> torch.optim.Optimizer:
    matrices = [weight for weight in llama.parameters() if weight.dim() == 2]
    gains = [weight for weight in llama.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def average_gradients(llama: Llama) -> None:
    """Leaves the mean of the workers' gradients at each of them."""
    gradients = [weight.grad for weight in llama.parameters()]
    mean = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(mean)
    mean /= WORKERS
    for gradient, averaged in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))


def train(worker: int, rendezvous: str, phase: Phase, start: Path | None, folder: Path) -> None:
    """One of the workers that train together, from the weights in `start`, if any.

    The first worker exports into `folder` at each validation.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(phase.seed)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=worker, world_size=WORKERS)
    held_out = corpus.held_out()
    llama = Llama(SHAPE, tok.CONTEXT_TOKENS)
    if start:
        llama.load_state_dict(load_file(start / "model.safetensors"))
    optimizer = make_optimizer(llama)
    hidden_of = torch.compile(llama.hidden, dynamic=True)
    progress = Progress(phase.steps)
    batches = islice(Corpus(phase, held_out).batches(), worker, phase.steps * WORKERS, WORKERS)
    for step, (ids, weights) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase, step)
        optimizer.zero_grad(set_to_none=True)
        loss = batch_loss(llama, hidden_of, ids, weights)
        loss.backward()
        average_gradients(llama)
        torch.nn.utils.clip_grad_norm_(llama.parameters(), 1.0)
        optimizer.step()
        if worker > 0:
            continue
        progress.step(loss.item(), ids.numel() * WORKERS)
        if (step + 1) % STEPS_BETWEEN_VALIDATIONS == 0 or step + 1 == phase.steps:
            print("validation  " + one_line(validate(llama, held_out.validation)), flush=True)
            export(llama, folder)
    dist.destroy_process_group()


class Progress:
    """Prints the loss, the pace and the time left, every 50 steps."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps
        self.started = time.monotonic()
        self.losses: list[float] = []
        self.n_tokens = 0

    def step(self, loss: float, n_tokens: int) -> None:
        self.losses.append(loss)
        self.n_tokens += n_tokens
        done = len(self.losses)
        if done % 50 and done < self.n_steps:
            return
        seconds = time.monotonic() - self.started
        recent = self.losses[-50:]
        print(
            f"step {done}/{self.n_steps}  loss {sum(recent) / len(recent):.4f}  "
            f"{self.n_tokens / seconds:,.0f} tokens/s  {seconds / 60:.1f} min  "
            f"ETA {seconds / done * (self.n_steps - done) / 60:.1f} min",
            flush=True,
        )


def validate(llama: Llama, cases: list[Turn]) -> Accuracy:
    def next_logits(ids: Tensor) -> Tensor:
        with autocast():
            return llama.logits(llama.hidden(ids)[:, -1])

    return accuracy(next_logits, cases, [encode_question(case.prompt) for case in cases])


def one_line(accuracies: Accuracy) -> str:
    return "  ".join(f"{skill} {100 * right / n_cases:.0f}%" for skill, (right, n_cases) in accuracies.items())


# --- Export -----------------------------------------------------------------------------------------------------------


def export(llama: Llama, folder: Path) -> None:
    """Writes a Hugging Face checkpoint: configuration, tokenizer and bf16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": SHAPE.vocab_size,
        "hidden_size": SHAPE.hidden_size,
        "intermediate_size": SHAPE.intermediate_size,
        "num_hidden_layers": SHAPE.num_hidden_layers,
        "num_attention_heads": SHAPE.num_attention_heads,
        "num_key_value_heads": SHAPE.num_key_value_heads,
        "head_dim": SHAPE.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": SHAPE.rms_norm_eps,
        "rope_theta": SHAPE.rope_theta,
        "max_position_embeddings": tok.CONTEXT_TOKENS,
        "tie_word_embeddings": True,
        "bos_token_id": tok.BOS,
        "eos_token_id": tok.END,
        "pad_token_id": tok.EOS,
        "torch_dtype": "bfloat16",
    }
    generation = {
        "bos_token_id": tok.BOS,
        "eos_token_id": [tok.END, tok.EOS],
        "pad_token_id": tok.EOS,
        "do_sample": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tok.save(folder)
    weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in llama.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_held_out(cases: list[Turn], folder: Path) -> None:
    lines = [json.dumps({"skill": case.skill, "prompt": case.prompt, "answer": case.answer}) for case in cases]
    (folder / "heldout.jsonl").write_text("\n".join(lines) + "\n")


# --- The figures ------------------------------------------------------------------------------------------------------


def evaluate_export(folder: Path, cases: list[Turn]) -> dict[str, Accuracy]:
    """Accuracy of the exported files under transformers, through their chat template, by column of the table."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_encoding(tokenizer)

    def encode_chat(*turns: Turn) -> list[int]:
        messages = Conversation(None, list(turns)).messages()[:-1]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return tokenizer.encode(text, add_special_tokens=False)

    def measure(dtype: torch.dtype, prompts: list[list[int]]) -> Accuracy:
        llama = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        return accuracy(lambda ids: llama(ids, use_cache=False).logits[:, -1], cases, prompts)

    first_turns = [encode_chat(case) for case in cases]
    # Cases are grouped by skill, so the question before is always of another skill.
    n_shift = corpus.HELD_OUT_CASES_PER_SKILL
    second_turns = [encode_chat(cases[i - n_shift], case) for i, case in enumerate(cases)]
    return {
        "f32": measure(torch.float32, first_turns),
        "bf16": measure(torch.bfloat16, first_turns),
        "second turn, f32": measure(torch.float32, second_turns),
    }


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


def read_held_out(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]


def overlaps(held_out: corpus.HeldOut) -> Counter[str]:
    """Goes through the whole corpus and counts its questions that have a held-out input, by skill."""
    total: Counter[str] = Counter()
    n_conversations = 0
    for phase in PHASES:
        data = Corpus(phase, held_out)
        for _ in islice(data.batches(), phase.steps * WORKERS):
            pass
        total += data.overlaps_by_skill
        n_conversations += data.n_conversations
    print(f"{n_conversations:,} conversations in the corpus")
    return total


def print_table(accuracies: dict[str, Accuracy], overlaps_by_skill: Counter[str]) -> None:
    print(f"| skill | cases | {' | '.join(f'{column} %' for column in accuracies)} | overlaps |")
    print("|---" * (len(accuracies) + 3) + "|")
    for skill, (_, n_cases) in accuracies["f32"].items():
        percentages = [f"{100 * column[skill][0] / n_cases:.1f}" for column in accuracies.values()]
        print(f"| {skill} | {n_cases} | {' | '.join(percentages)} | {overlaps_by_skill[skill]} |")
    print(f"{sum(overlaps_by_skill.values())} overlaps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval-only", action="store_true", help="train nothing")
    parser.add_argument("--from-phase", type=int, default=0, help="continue with this phase from the files in FOLDER")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the checkpoint is (default: %(default)s)")
    arguments = parser.parse_args()

    held_out = corpus.held_out()
    if not arguments.eval_only:
        n_parameters = sum(weight.numel() for weight in Llama(SHAPE, tok.CONTEXT_TOKENS).parameters())
        print(f"{n_parameters:,} parameters", flush=True)
        for index, phase in list(enumerate(PHASES))[arguments.from_phase :]:
            print(f"phase {index}", flush=True)
            start = arguments.folder if index > 0 else None
            with tempfile.TemporaryDirectory() as scratch:
                mp.spawn(train, args=(f"{scratch}/rendezvous", phase, start, arguments.folder), nprocs=WORKERS)
        write_held_out(held_out.test, arguments.folder)
    expected = [{"skill": case.skill, "prompt": case.prompt, "answer": case.answer} for case in held_out.test]
    assert read_held_out(arguments.folder) == expected, "heldout.jsonl is not what corpus.py holds out"
    print_table(evaluate_export(arguments.folder, held_out.test), overlaps(held_out))


if __name__ == "__main__":
    main()
