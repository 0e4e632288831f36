"""The last phase: tower, projector and decoder learn together to answer questions about pictures."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import corpus
import scenes
import tokenizer as tok
from corpus import Conversation, Turn
from evaluate import Accuracy, accuracy, one_line
from model import Llama, Shape
from samples import BATCH_TOKENS_PER_WORKER, Sample, batches, encode, encode_question, pad
from train_tower import VISION_SHAPE
from training import Progress, Trainer, mean_loss
from vision import Eye

SHAPE = Shape(vocab_size=tok.VOCAB_SIZE + 1)

LEARNING_RATE = 1.5e-3
# The tower knows its part already.
TOWER_LEARNING_RATE = 2e-4
STEPS_BETWEEN_VALIDATIONS = 600
BATCHES_SORTED_TOGETHER = 16


@dataclass(frozen=True)
class Phase:
    """The first steps show one or two things: what is learnt there carries over.

    `share_of_scenes` is that of the steps; the others keep the skills without pictures. `share_of_simple` is that of
    the questions.
    """

    seed: int
    steps: int
    steps_of_few_things: int
    share_of_scenes: float
    share_of_simple: float
    skill_weights: dict[str, float]


PHASES = (
    Phase(
        seed=23,
        steps=2600,
        steps_of_few_things=300,
        share_of_scenes=0.65,
        share_of_simple=0.0,
        skill_weights={
            "color": 1.0,
            "shape": 1.3,
            "count": 1.3,
            "position": 1.0,
            "size": 1.0,
            "cell": 1.2,
            "presence": 1.2,
            "caption": 0.5,
        },
    ),
    Phase(
        seed=24,
        steps=1200,
        steps_of_few_things=0,
        share_of_scenes=0.8,
        share_of_simple=0.5,
        skill_weights={
            "color": 0.3,
            "shape": 0.3,
            "count": 0.5,
            "position": 1.0,
            "size": 1.0,
            "cell": 1.5,
            "presence": 0.5,
            "caption": 4.0,
        },
    ),
)
TURN_COUNT_WEIGHTS = {1: 30, 2: 15, 4: 25, 6: 30}
# Captions are long, and stories mostly a matter of taste.
TOKEN_WEIGHTS = {"story": 0.1}

NO_IMAGE = "I see no image. Attach one and ask again."
ABILITIES = corpus.ABILITIES.replace("and tell", "tell").replace(
    ".", ", and answer questions about pictures of simple shapes."
)

# --- Samples ----------------------------------------------------------------------------------------------------------


def scene_samples(
    phase: Phase, rng: random.Random, without: set[scenes.Scene], few_things: bool
) -> Iterator[Sample]:
    """Conversations about a picture, one in ten of whose questions are of another kind."""
    skills, skill_weights = tuple(phase.skill_weights), tuple(phase.skill_weights.values())
    turn_counts, turn_count_weights = tuple(TURN_COUNT_WEIGHTS), tuple(TURN_COUNT_WEIGHTS.values())
    held_out_inputs = corpus.held_out().inputs()
    for scene in scenes.training_scenes(rng, 2 if few_things else 4, without):
        n_turns = rng.choices(turn_counts, turn_count_weights)[0]
        turns: list[Turn] = []
        while len(turns) < n_turns:
            if rng.random() < 0.1:
                turn = corpus.draw_turn(rng, corpus.DRILL, held_out_inputs)
            else:
                is_simple = phase.share_of_simple > 0 and rng.random() < phase.share_of_simple
                ask = scenes.ask_simply if is_simple else scenes.ask
                turn = ask(rng, scene, rng.choices(skills, skill_weights)[0])
            if turn and turn.skill != "story":
                turns.append(replace(turn, prompt=corpus.type_carelessly(rng, turn.prompt)))
        system = rng.choice(corpus.SYSTEM_MESSAGES) if rng.random() < 0.08 else None
        sample = encode(Conversation(system, turns), TOKEN_WEIGHTS, scene)
        if len(sample.ids) <= tok.CONTEXT_TOKENS:
            yield sample


def text_samples(seed: int) -> Iterator[Sample]:
    """The conversations of the phases before, with some questions about a picture that is not there."""
    rng = random.Random(seed)
    held_out_inputs = corpus.held_out().inputs()
    kinds = [corpus.conversations(seed + 1, mix, held_out_inputs) for mix in (corpus.BROAD, corpus.DRILL)]
    while True:
        conversation = next(rng.choice(kinds))
        turns = [knowing_of_pictures(turn) for turn in conversation.turns]
        if rng.random() < 0.04:
            turns = [Turn("chat", "", draw_scene_question(rng), NO_IMAGE)]
        sample = encode(Conversation(conversation.system, turns), TOKEN_WEIGHTS)
        if len(sample.ids) <= tok.CONTEXT_TOKENS:
            yield sample


def knowing_of_pictures(turn: Turn) -> Turn:
    return replace(turn, answer=ABILITIES) if turn.answer == corpus.ABILITIES else turn


def draw_scene_question(rng: random.Random) -> str:
    while True:
        turn = scenes.ask(rng, scenes.draw_scene(rng), rng.choice(tuple(scenes.SKILLS)))
        if turn:
            return corpus.type_carelessly(rng, turn.prompt)


# --- Training ---------------------------------------------------------------------------------------------------------


class Model:
    """The decoder with its eye."""

    def __init__(self):
        self.llama = Llama(SHAPE, tok.CONTEXT_TOKENS)
        self.eye = Eye(VISION_SHAPE, SHAPE.hidden_size)

    def load(self, whole: Path) -> None:
        """What a phase of this file saved."""
        weights = {
            name.replace("vision_model.", "").removeprefix("language_model."): weight
            for name, weight in load_file(whole).items()
        }
        eye = {name: weights.pop(name) for name in self.eye.state_dict()}
        self.eye.load_state_dict(eye)
        self.llama.load_state_dict(weights)

    def join(self, text: Path, tower: Path) -> None:
        """What the phases before saved. The row of the image token stays as it is drawn: it is never read."""
        weights = load_file(text)
        name = "model.embed_tokens.weight"
        weights[name] = torch.cat((weights[name].float(), self.llama.state_dict()[name][tok.IMAGE :]))
        self.llama.load_state_dict(weights)
        self.eye.vision_tower.load_state_dict(load_file(tower))

    def state_dict(self) -> dict[str, Tensor]:
        llama = {f"language_model.{name}": weight for name, weight in self.llama.state_dict().items()}
        tower = {
            name.replace("vision_tower.", "vision_tower.vision_model."): weight
            for name, weight in self.eye.state_dict().items()
        }
        return llama | tower

    def embed(self, ids: Tensor, pixels: Tensor | None) -> Tensor:
        """`ids`: `[n, n_tokens]`; `pixels`: a picture for each, if they have image tokens."""
        x = self.llama.model.embed_tokens(ids)
        if pixels is None:
            return x
        return x.masked_scatter((ids == tok.IMAGE)[:, :, None], self.eye(pixels).to(x.dtype))


def train_scenes(worker: int, phase: Phase, start: tuple[Path, ...], output: Path) -> None:
    """From the weights in the files `start`: those of text and tower, or those that a phase before saved."""
    torch.manual_seed(phase.seed)
    held_out = scenes.held_out()
    model = Model()
    if len(start) == 2:
        model.join(*start)
    else:
        model.load(*start)
    rates = (
        (model.llama, LEARNING_RATE),
        (model.eye.vision_tower, TOWER_LEARNING_RATE),
        (model.eye.multi_modal_projector, LEARNING_RATE),
    )
    trainer = Trainer(rates, phase.steps)
    decode = torch.compile(model.llama.decode, dynamic=True)
    own_seed = phase.seed + 100 * worker
    painter = scenes.Painter(own_seed)
    few, many = (
        batches(
            scene_samples(phase, random.Random(own_seed), held_out.scenes(), is_few),
            own_seed,
            BATCHES_SORTED_TOGETHER,
        )
        for is_few in (True, False)
    )
    texts = batches(text_samples(own_seed), own_seed, BATCHES_SORTED_TOGETHER)
    # The workers take the same kind of batch, as the tower has no gradient without a picture.
    kind = random.Random(phase.seed)
    progress = Progress(phase.steps, "tokens")
    for step in range(phase.steps):
        has_pictures = kind.random() < phase.share_of_scenes
        batch = next(texts if not has_pictures else few if step < phase.steps_of_few_things else many)
        pixels = painter.paint([sample.scene for sample in batch]) if has_pictures else None
        ids, weights = pad(batch)
        hidden = decode(model.embed(ids[:, :-1], pixels))
        targets, weights = ids[:, 1:], weights[:, 1:]
        counts = weights > 0
        loss = mean_loss(model.llama.logits(hidden[counts]), targets[counts], weights[counts])
        trainer.step(step, loss)
        if worker > 0:
            continue
        progress.step(loss.item(), BATCH_TOKENS_PER_WORKER * 2)
        if (step + 1) % STEPS_BETWEEN_VALIDATIONS == 0 or step + 1 == phase.steps:
            print("validation  " + one_line(validate(model, held_out)), flush=True)
            save_file(model.state_dict(), output)


@torch.no_grad()
def validate(model: Model, held_out: scenes.HeldOut) -> Accuracy:
    cases = held_out.validation
    painter = scenes.Painter(PHASES[0].seed)
    pixels = painter.paint([case.scene for case in cases])

    def scene_logits(ids: Tensor, indices: list[int]) -> Tensor:
        return model.llama.logits(model.llama.decode(model.embed(ids, pixels[indices]))[:, -1])

    def text_logits(ids: Tensor, _: list[int]) -> Tensor:
        return model.llama.logits(model.llama.hidden(ids)[:, -1])

    turns = [case.turn for case in cases]
    of_scenes = accuracy(scene_logits, turns, [encode_question(turn.prompt, has_picture=True) for turn in turns])
    text = corpus.held_out().validation
    return of_scenes | accuracy(text_logits, text, [encode_question(turn.prompt) for turn in text])
