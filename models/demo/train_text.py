"""The first phases: the decoder learns its skills without pictures."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import corpus
import tokenizer as tok
from corpus import Turn
from evaluate import Accuracy, accuracy, one_line
from model import Llama, Shape
from samples import Sample, batches, encode, encode_question, pad
from training import WORKERS, Progress, Trainer, autocast, mean_loss

SHAPE = Shape(vocab_size=tok.VOCAB_SIZE)


@dataclass(frozen=True)
class Phase:
    """The next phase takes the weights that one saved, and a fresh optimizer.

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
BATCHES_SORTED_TOGETHER = 128
STEPS_BETWEEN_VALIDATIONS = 400


class Corpus:
    """The samples of one phase, counting the questions that have a held-out input."""

    def __init__(self, phase: Phase, held_out: corpus.HeldOut):
        self.phase = phase
        self.held_out_inputs = held_out.inputs()
        self.overlaps_by_skill: Counter[str] = Counter()
        self.n_conversations = 0

    def samples(self) -> Iterator[Sample]:
        for conversation in corpus.conversations(self.phase.seed, self.phase.mix, without=self.held_out_inputs):
            sample = encode(conversation, {"story": self.phase.story_weight})
            if len(sample.ids) > tok.CONTEXT_TOKENS:
                continue
            self.n_conversations += 1
            for turn in conversation.turns:
                if turn.input in self.held_out_inputs:
                    self.overlaps_by_skill[turn.skill] += 1
            yield sample

    def batches(self) -> Iterator[list[Sample]]:
        return batches(self.samples(), self.phase.seed, BATCHES_SORTED_TOGETHER)


def train_text(worker: int, phase: Phase, start: Path | None, output: Path) -> None:
    """From the weights in the file `start`, if any; the first worker saves to `output` at each validation."""
    torch.manual_seed(phase.seed)
    held_out = corpus.held_out()
    llama = Llama(SHAPE, tok.CONTEXT_TOKENS)
    if start:
        llama.load_state_dict(load_file(start))
    trainer = Trainer(((llama, phase.learning_rate),), phase.schedule_steps)
    hidden_of = torch.compile(llama.hidden, dynamic=True)
    progress = Progress(phase.steps, "tokens")
    for step, batch in enumerate(islice(Corpus(phase, held_out).batches(), worker, phase.steps * WORKERS, WORKERS)):
        ids, weights = pad(batch)
        with autocast():
            hidden = hidden_of(ids[:, :-1])
            targets, weights = ids[:, 1:], weights[:, 1:]
            counts = weights > 0
            logits = llama.logits(hidden[counts])
        loss = mean_loss(logits, targets[counts], weights[counts])
        trainer.step(step, loss)
        if worker > 0:
            continue
        progress.step(loss.item(), ids.numel() * WORKERS)
        if (step + 1) % STEPS_BETWEEN_VALIDATIONS == 0 or step + 1 == phase.steps:
            print("validation  " + one_line(validate(llama, held_out.validation)), flush=True)
            # In the precision of the export, as the next phase starts from what this one would ship.
            weights = {name: weight.to(torch.bfloat16) for name, weight in llama.state_dict().items()}
            save_file(weights, output)


def validate(llama: Llama, cases: list[Turn]) -> Accuracy:
    def next_logits(ids: Tensor, _: list[int]) -> Tensor:
        with autocast():
            return llama.logits(llama.hidden(ids)[:, -1])

    return accuracy(next_logits, cases, [encode_question(case.prompt) for case in cases])


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
