"""Greedy decoding, and exact-match accuracy on cases of `corpus`."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

import tokenizer as tok
from corpus import Turn
from samples import Sample, pad

# `[batch, n_tokens]` token ids and the indices of their prompts in, logits `[batch, vocab_size]` of the next token out.
NextLogits = Callable[[Tensor, list[int]], Tensor]
Accuracy = dict[str, tuple[int, int]]


@torch.no_grad()
def greedy(
    next_logits: NextLogits, prompts: list[list[int]], indices: list[int], n_tokens_max: int
) -> list[list[int]]:
    """Continues the prompts of `indices`, of one length. Each continuation ends before the first end token."""
    ids = torch.tensor([prompts[index] for index in indices])
    n_prompt_tokens = ids.shape[1]
    ended = torch.zeros(len(indices), dtype=torch.bool)
    for _ in range(n_tokens_max):
        next_ids = next_logits(ids, indices).argmax(-1)
        ids = torch.cat((ids, next_ids[:, None]), dim=1)
        ended |= (next_ids == tok.END) | (next_ids == tok.EOS)
        if ended.all():
            break
    continuations = ids[:, n_prompt_tokens:].tolist()
    return [until_end(continuation) for continuation in continuations]


def until_end(ids: list[int]) -> list[int]:
    ends = [i for i, token_id in enumerate(ids) if token_id in (tok.END, tok.EOS)]
    return ids[: ends[0]] if ends else ids


def answers(next_logits: NextLogits, prompts: list[list[int]], n_tokens_max: int, batch: int = 128) -> list[bytes]:
    """The greedy answer to each prompt, as bytes, in the order of `prompts`."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    answered: list[bytes] = [b""] * len(prompts)
    for indices in by_length.values():
        for start in range(0, len(indices), batch):
            chosen = indices[start : start + batch]
            continuations = greedy(next_logits, prompts, chosen, n_tokens_max)
            for index, ids in zip(chosen, continuations, strict=True):
                answered[index] = bytes(i for i in ids if i < 256)
    return answered


def accuracy(next_logits: NextLogits, cases: list[Turn], prompts: list[list[int]]) -> Accuracy:
    """Right answers and cases, by skill. `prompts` are the token ids of the chats that end in the cases' questions."""
    n_tokens_max = max(len(case.answer) for case in cases) + 1
    answered = answers(next_logits, prompts, n_tokens_max)
    right: dict[str, list[bool]] = defaultdict(list)
    for case, answer in zip(cases, answered, strict=True):
        right[case.skill].append(answer == case.answer.encode())
    return {skill: (sum(marks), len(marks)) for skill, marks in right.items()}


@torch.no_grad()
def forced_accuracy(
    logits_of: Callable[[list[Sample]], Tensor], samples: list[Sample], skills: list[str], batch: int = 64
) -> Accuracy:
    """What `accuracy` counts, of samples with one answer each, without decoding.

    Greedy decoding gives an answer exactly when each of its tokens is the likeliest after those before.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    indices = sorted(range(len(samples)), key=lambda index: len(samples[index].ids))
    for start in range(0, len(indices), batch):
        chosen = indices[start : start + batch]
        ids, weights = pad([samples[index] for index in chosen])
        guesses = logits_of([samples[index] for index in chosen])[:, :-1].argmax(-1)
        marks = ((guesses == ids[:, 1:]) | (weights[:, 1:] == 0)).all(1)
        for index, mark in zip(chosen, marks.tolist(), strict=True):
            right[skills[index]].append(mark)
    return {skill: (sum(right[skill]), len(right[skill])) for skill in dict.fromkeys(skills)}


def one_line(accuracies: Accuracy) -> str:
    return "  ".join(f"{skill} {100 * right / n_cases:.0f}%" for skill, (right, n_cases) in accuracies.items())
