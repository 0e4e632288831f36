"""The phase that teaches the tower and the projector alone to say what is in each cell of a picture.

What stands in for a cell's image token becomes the sum of four code vectors: its shape's, its colour's, its size's and
its place's. So the decoder, which learns after it, hears each of them equally loud.
"""

import random
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import scenes
from model import Shape
from training import Progress, Trainer
from vision import Eye, VisionShape

VISION_SHAPE = VisionShape(image_size=scenes.SIDE, patch_size=scenes.CELL)
DECODER_WIDTH = Shape(vocab_size=0).hidden_size
# Shape, colour and size, each with a class for an empty cell, and the cell.
N_CLASSES = (len(scenes.SHAPES) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1, scenes.N_CELLS)
# Root mean square of an embedding's numbers, as the text model's embeddings of letters have it.
LOUDNESS = 0.2

SEED = 22
STEPS = 3000
LEARNING_RATE = 1e-3
BATCH_SCENES_PER_WORKER = 64
STEPS_BETWEEN_VALIDATIONS = 1000


class Codes:
    """An orthonormal vector for each class of each property."""

    def __init__(self):
        drawn = torch.randn(DECODER_WIDTH, sum(N_CLASSES), generator=torch.Generator().manual_seed(SEED))
        self.codes = torch.linalg.qr(drawn)[0].T.split(N_CLASSES)

    def scores(self, seen: Tensor) -> list[Tensor]:
        """How much of each class is in `seen`, scaled as the decoder's first norm does.

        A tensor a property, `[n_scenes, N_CELLS, n_classes]`.
        """
        normed = F.rms_norm(seen, (DECODER_WIDTH,))
        return [normed @ codes.T for codes in self.codes]

    def loss(self, seen: Tensor, labels: Tensor) -> Tensor:
        """The sum of the properties' mean cross-entropies, and how far `seen` is from its loudness."""
        cells = torch.arange(scenes.N_CELLS).expand(len(labels), -1)[:, :, None]
        targets = torch.cat((labels, cells), dim=-1)
        loudness = seen.square().mean(-1).sqrt() / LOUDNESS
        return (loudness - 1).square().mean() + sum(
            F.cross_entropy(scores.flatten(0, 1), targets[:, :, index].flatten())
            for index, scores in enumerate(self.scores(seen))
        )

    def right(self, seen: Tensor, labels: Tensor) -> Tensor:
        """The share of cells with something in them of which shape, colour and size are right: `[3]`."""
        guesses = torch.stack([scores.argmax(-1) for scores in self.scores(seen)[:3]], dim=-1)
        return (guesses == labels)[labels[:, :, 0] > 0].float().mean(0)


def train_tower(worker: int, output: Path) -> None:
    torch.manual_seed(SEED)
    eye, codes = Eye(VISION_SHAPE, DECODER_WIDTH), Codes()
    painter = scenes.Painter(SEED + 100 * worker)
    held_out = scenes.held_out()
    rng = random.Random(SEED + 100 * worker)
    drawn = scenes.training_scenes(rng, 4, without=held_out.scenes())
    trainer = Trainer(((eye, LEARNING_RATE),), STEPS)
    see = torch.compile(eye, dynamic=False)
    progress = Progress(STEPS, "pictures")
    for step in range(STEPS):
        batch = list(islice(drawn, BATCH_SCENES_PER_WORKER))
        pixels, labels = painter.paint(batch), scenes.cell_labels(batch)
        loss = codes.loss(see(pixels), labels)
        trainer.step(step, loss)
        if worker > 0:
            continue
        progress.step(loss.item(), 2 * len(batch))
        if (step + 1) % STEPS_BETWEEN_VALIDATIONS == 0:
            validation = sorted({case.scene for case in held_out.validation})
            with torch.no_grad():
                shape, color, size = codes.right(eye(painter.paint(validation)), scenes.cell_labels(validation))
            print(f"validation  shape {shape:.1%}  color {color:.1%}  size {size:.1%}", flush=True)
            save_file(eye.state_dict(), output)
