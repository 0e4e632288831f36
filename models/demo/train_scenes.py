"""The last phases: the decoder learns to answer questions about pictures, and keeps its other skills."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import corpus
import scenes
import tokenizer as tok
from corpus import Conversation, Turn
from evaluate import Accuracy, forced_accuracy, one_line
from model import Llama, Shape
from samples import BATCH_TOKENS_PER_WORKER, Sample, batches, encode, pad, pad_cells
from train_tower import VISION_SHAPE
from training import Progress, Trainer, mean_loss
from vision import Eye

SHAPE = Shape(vocab_size=tok.VOCAB_SIZE + 1)
BATCHES_SORTED_TOGETHER = 16
STEPS_BETWEEN_VALIDATIONS = 200
# Questions that need one property only, and questions of the skills without pictures.
SHARE_OF_SIMPLE = 0.2
SHARE_OF_TEXT = 0.05


@dataclass(frozen=True)
class Phase:
    """The first steps show one or two things: what is learnt there carries over.

    The learning rate is that of a run of `schedule_steps`, which may be more than are made. `share_of_pictures` is that
    of the steps; the others keep the skills without pictures.
    """

    seed: int
    steps: int
    schedule_steps: int
    steps_of_few_things: int
    learning_rate: float
    share_of_pictures: float
    skill_weights: dict[str, float]


PHASES = (
    Phase(
        seed=24,
        steps=2600,
        schedule_steps=2600,
        steps_of_few_things=300,
        learning_rate=1.5e-3,
        share_of_pictures=0.6,
        skill_weights={
            "color": 0.7,
            "shape": 0.7,
            "count": 1.5,
            "position": 1.0,
            "size": 0.7,
            "cell": 1.5,
            "presence": 1.0,
            "caption": 0.7,
        },
    ),
    # More of what takes longest.
    Phase(
        seed=25,
        steps=1000,
        schedule_steps=1500,
        steps_of_few_things=0,
        learning_rate=1.0e-3,
        share_of_pictures=0.7,
        skill_weights={
            "color": 0.4,
            "shape": 0.4,
            "count": 2.5,
            "position": 0.8,
            "size": 0.5,
            "cell": 1.8,
            "presence": 0.7,
            "caption": 1.5,
        },
    ),
    Phase(
        seed=26,
        steps=1000,
        schedule_steps=1000,
        steps_of_few_things=0,
        learning_rate=8e-4,
        share_of_pictures=0.65,
        skill_weights={
            "color": 0.5,
            "shape": 0.6,
            "count": 2.5,
            "position": 0.9,
            "size": 0.4,
            "cell": 1.5,
            "presence": 0.8,
            "caption": 1.2,
        },
    ),
)
TURN_COUNT_WEIGHTS = {1: 30, 2: 15, 4: 25, 6: 30}

# After two layers the words of the question are put together; of six heads, two look at what it asks for.
LOOKING_LAYER = 2
LOOKING_HEADS = 2
LOOKING_WEIGHT = 0.2

# Captions are long, and stories mostly a matter of taste.
TOKEN_WEIGHTS = {"story": 0.1, "caption": 0.4}

NO_IMAGE = "I see no image. Attach one and ask again."
ABILITIES = corpus.ABILITIES.replace("and tell", "tell").replace(
    ".", ", and answer questions about pictures of simple shapes."
)

# --- Samples ----------------------------------------------------------------------------------------------------------


def scene_samples(
    phase: Phase, rng: random.Random, without: set[scenes.Scene], things_max: int
) -> Iterator[Sample]:
    """Conversations about a picture."""
    skills, skill_weights = zip(*phase.skill_weights.items(), strict=True)
    turn_counts, turn_count_weights = zip(*TURN_COUNT_WEIGHTS.items(), strict=True)
    held_out_inputs = corpus.held_out().inputs()
    for scene in scenes.training_scenes(rng, things_max, without):
        n_turns = rng.choices(turn_counts, turn_count_weights)[0]
        turns: list[Turn] = []
        asked: set[str] = set()
        # One thing alone gives few questions.
        for _ in range(4 * n_turns):
            if len(turns) == n_turns:
                break
            if rng.random() < SHARE_OF_TEXT:
                turn = corpus.draw_turn(rng, corpus.DRILL, held_out_inputs)
            else:
                ask = scenes.ask_simply if rng.random() < SHARE_OF_SIMPLE else scenes.ask
                turn = ask(rng, scene, rng.choices(skills, skill_weights)[0])
            if turn and turn.skill != "story" and turn.prompt not in asked:
                asked.add(turn.prompt)
                turns.append(replace(turn, prompt=corpus.type_carelessly(rng, turn.prompt)))
        system = rng.choice(corpus.SYSTEM_MESSAGES) if rng.random() < 0.08 else None
        sample = encode(Conversation(system, turns), TOKEN_WEIGHTS, scene)
        if turns and len(sample.ids) <= tok.CONTEXT_TOKENS:
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
    """The decoder with its eye, which has learnt all that it needs and stays as it is."""

    def __init__(self, eye: Path):
        self.llama = Llama(SHAPE, tok.CONTEXT_TOKENS)
        self.eye = Eye(VISION_SHAPE, SHAPE.hidden_size)
        self.eye.load_state_dict(load_file(eye))
        self.eye.requires_grad_(False)

    def load_decoder(self, file: Path) -> None:
        """The decoder of a checkpoint. Where that has no row for the image token, it stays as drawn: nobody reads it."""
        loaded = load_file(file)
        weights = {name.removeprefix("language_model."): weight.float() for name, weight in loaded.items()}
        own = self.llama.state_dict()
        name = "model.embed_tokens.weight"
        weights[name] = torch.cat((weights[name], own[name][len(weights[name]) :]))
        self.llama.load_state_dict({name: weights[name] for name in own})

    def state_dict(self) -> dict[str, Tensor]:
        """As the checkpoint names them."""
        llama = {f"language_model.{name}": weight for name, weight in self.llama.state_dict().items()}
        tower = {
            name.replace("vision_tower.", "vision_tower.vision_model."): weight
            for name, weight in self.eye.state_dict().items()
        }
        return llama | tower

    def logits(self, batch: list[Sample], painter: scenes.Painter) -> Tensor:
        """`[n_samples, n_tokens, vocab_size]`, of the token after each."""
        ids, _ = pad(batch)
        return self.llama.logits(self.llama.decode(self.embed(ids, self.see(batch, painter))))

    def see(self, batch: list[Sample], painter: scenes.Painter) -> Tensor | None:
        """What stands in for the image tokens of a batch, of which all samples have a picture or none."""
        seen = [sample.scene for sample in batch if sample.scene]
        return self.eye(painter.paint(seen)) if seen else None

    def embed(self, ids: Tensor, seen: Tensor | None) -> Tensor:
        """`ids`: `[n, n_tokens]`."""
        x = self.llama.model.embed_tokens(ids)
        return x if seen is None else x.masked_scatter((ids == tok.IMAGE)[:, :, None], seen)


# Embeddings and a layer in; hidden states and where that layer's heads looked out.
Decode = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def loss_of(model: Model, decode: Decode, batch: list[Sample], painter: scenes.Painter) -> Tensor:
    """Of the answers, and of where some heads look for them.

    Without the latter the model takes very long to find out that it must look at the thing that is asked for: nothing
    comes of looking there before it is read, nor of reading before it looks there.
    """
    ids, weights = pad(batch)
    hidden, looked = decode(model.embed(ids[:, :-1], model.see(batch, painter)), LOOKING_LAYER)
    targets, weights = ids[:, 1:], weights[:, 1:]
    counts = weights > 0
    loss = mean_loss(model.llama.logits(hidden[counts]), targets[counts], weights[counts])
    if batch[0].scene is None:
        return loss
    shares = pad_cells(batch)[:, 1:]
    first = torch.tensor([sample.ids.index(tok.IMAGE) for sample in batch])
    at = (first[:, None] + torch.arange(scenes.N_CELLS))[:, None, None, :]
    seen = looked[:, :LOOKING_HEADS].gather(3, at.expand(-1, LOOKING_HEADS, shares.shape[1], -1)).clamp_min(1e-20)
    surprise = -(shares[:, None] * seen.log()).sum(-1).mean(1)
    has_cells = weights * (shares.sum(-1) > 0)
    return loss + LOOKING_WEIGHT * (surprise * has_cells).sum() / has_cells.sum().clamp_min(1)


def train_scenes(worker: int, phase: Phase, eye: Path, start: Path, output: Path) -> None:
    """From the eye and the decoder in the file `start`: the text model's, or what a phase before saved."""
    torch.manual_seed(phase.seed)
    model = Model(eye)
    model.load_decoder(start)
    trainer = Trainer(((model.llama, phase.learning_rate),), phase.schedule_steps)
    decode = torch.compile(model.llama.decode_and_look, dynamic=True)
    own_seed = phase.seed + 100 * worker
    painter = scenes.Painter(own_seed)
    held_out = scenes.held_out()
    few, many = (
        batches(
            scene_samples(phase, random.Random(own_seed), held_out.scenes(), things_max),
            own_seed,
            BATCHES_SORTED_TOGETHER,
        )
        for things_max in (2, scenes.THINGS_MAX)
    )
    texts = batches(text_samples(own_seed), own_seed, BATCHES_SORTED_TOGETHER)
    rng = random.Random(own_seed)
    progress = Progress(phase.steps, "tokens")
    for step in range(phase.steps):
        pictures = few if step < phase.steps_of_few_things else many
        batch = next(pictures if rng.random() < phase.share_of_pictures else texts)
        loss = loss_of(model, decode, batch, painter)
        trainer.step(step, loss)
        if worker > 0:
            continue
        progress.step(loss.item(), BATCH_TOKENS_PER_WORKER * 2)
        if (step + 1) % STEPS_BETWEEN_VALIDATIONS == 0 or step + 1 == phase.steps:
            print("validation  " + one_line(validate(model, held_out)), flush=True)
            save_file(model.state_dict(), output)


def validate(model: Model, held_out: scenes.HeldOut) -> Accuracy:
    of_scenes = accuracy_on(model, [(case.scene, case.turn) for case in held_out.validation])
    return of_scenes | accuracy_on(model, [(None, turn) for turn in corpus.held_out().validation])


def accuracy_on(model: Model, cases: list[tuple[scenes.Scene | None, Turn]]) -> Accuracy:
    painter = scenes.Painter(PHASES[0].seed, masks_of_each=100)
    samples = [encode(Conversation(None, [turn]), scene=scene) for scene, turn in cases]
    return forced_accuracy(lambda batch: model.logits(batch, painter), samples, [turn.skill for _, turn in cases])
