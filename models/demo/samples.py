"""Conversations as token ids, and batches of them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import scenes
import tokenizer as tok
from corpus import Conversation

BATCH_TOKENS_PER_WORKER = 2048


@dataclass(frozen=True)
class Sample:
    """`weights[i]` is what predicting `ids[i]` counts for in the loss: 0 for everything but answers.

    `scene` is what the picture shows that the image tokens stand for; `cells[i]` are those of it at which to look for
    `ids[i]`, if any.
    """

    ids: list[int]
    weights: list[float]
    cells: list[tuple[int, ...]]
    scene: scenes.Scene | None = None


def encode(
    conversation: Conversation, skill_weights: dict[str, float] | None = None, scene: scenes.Scene | None = None
) -> Sample:
    """The token ids the chat template gives; `check_encoding` compares the two.

    An answer's token counts for what `skill_weights` says of its skill, or for 1. With a scene, the first question
    starts with its picture.
    """
    skill_weights = skill_weights or {}
    ids, weights, looked_at = [tok.BOS], [0.0], [()]

    def add(role: int, content: list[int], weight: float, cells: tuple[tuple[int, ...], ...] = ()) -> None:
        ids.extend((role, *content, tok.END))
        weights.extend((0.0, *(weight for _ in content), weight))
        looked_at.extend(((), *(cells or ((),) * (len(content) + 1))))

    if conversation.system:
        add(tok.SYSTEM, [*conversation.system.encode()], 0.0)
    picture = [tok.IMAGE] * scenes.N_CELLS if scene else []
    for turn in conversation.turns:
        add(tok.USER, [*picture, *turn.prompt.encode()], 0.0)
        cells = turn.cells if isinstance(turn, scenes.SceneTurn) and scene else ()
        add(tok.ASSISTANT, [*turn.answer.encode()], skill_weights.get(turn.skill, 1.0), cells)
        picture = []
    return Sample(ids, weights, looked_at, scene)


def encode_question(prompt: str, has_picture: bool = False) -> list[int]:
    picture = [tok.IMAGE] * scenes.N_CELLS if has_picture else []
    return [tok.BOS, tok.USER, *picture, *prompt.encode(), tok.END, tok.ASSISTANT]


def batches(samples: Iterator[Sample], seed: int, sorted_together: int) -> Iterator[list[Sample]]:
    """Batches of samples of similar length, found by sorting as many samples as fill `sorted_together` batches."""
    rng = random.Random(seed)
    while True:
        batches: list[list[Sample]] = [[]]
        n_tokens_pooled = 0
        pool: list[Sample] = []
        while n_tokens_pooled < sorted_together * BATCH_TOKENS_PER_WORKER:
            pool.append(next(samples))
            n_tokens_pooled += len(pool[-1].ids)
        for sample in sorted(pool, key=lambda sample: len(sample.ids)):
            if (len(batches[-1]) + 1) * len(sample.ids) > BATCH_TOKENS_PER_WORKER:
                batches.append([])
            batches[-1].append(sample)
        rng.shuffle(batches)
        yield from batches


def pad_cells(samples: list[Sample]) -> Tensor:
    """For each token the share of attention that each cell should get: `[n_samples, n_tokens, N_CELLS]`, 0 for none."""
    n_tokens = max(len(sample.ids) for sample in samples)
    shares = torch.zeros(len(samples), n_tokens, scenes.N_CELLS)
    for row, sample in enumerate(samples):
        for position, cells in enumerate(sample.cells):
            if cells:
                shares[row, position, list(cells)] = 1 / len(cells)
    return shares


def pad(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Ids and loss weights, each `[n_samples, n_tokens]`."""
    n_tokens = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), n_tokens), tok.EOS)
    weights = torch.zeros(len(samples), n_tokens)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        weights[row, : len(sample.ids)] = torch.tensor(sample.weights)
    return ids, weights
