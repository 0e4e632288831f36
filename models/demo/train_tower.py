"""The phase that teaches the vision tower alone to name what is in each cell of a picture."""

import random
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import scenes
from training import Progress, Trainer
from vision import Tower, VisionShape

VISION_SHAPE = VisionShape(image_size=scenes.SIDE, patch_size=scenes.CELL)
N_CLASSES = (len(scenes.SHAPES) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1)

SEED = 22
STEPS = 3000
LEARNING_RATE = 1e-3
BATCH_SCENES_PER_WORKER = 64
STEPS_BETWEEN_VALIDATIONS = 1000


class Labels(nn.Module):
    """Guesses the classes of each cell from the tower's output. Only this phase uses it."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(VISION_SHAPE.hidden_size, n) for n in (*N_CLASSES, scenes.N_CELLS))

    def losses(self, seen: Tensor, labels: Tensor) -> Tensor:
        """The sum of the mean cross-entropies; a cell has to say which it is, too."""
        cells = torch.arange(scenes.N_CELLS).expand(len(labels), -1)[:, :, None]
        targets = torch.cat((labels, cells), dim=-1)
        return sum(
            F.cross_entropy(head(seen).float().flatten(0, 1), targets[:, :, index].flatten())
            for index, head in enumerate(self.heads)
        )

    def right(self, seen: Tensor, labels: Tensor) -> Tensor:
        """The share of cells with something in them of which each class is right: `[3]`."""
        guesses = torch.stack([head(seen).argmax(-1) for head in self.heads[:3]], dim=-1)
        return (guesses == labels)[labels[:, :, 0] > 0].float().mean(0)


def train_tower(worker: int, output: Path) -> None:
    torch.manual_seed(SEED)
    tower, labels_of = Tower(VISION_SHAPE), Labels()
    painter = scenes.Painter(SEED + 100 * worker)
    held_out = scenes.held_out()
    rng = random.Random(SEED + 100 * worker)
    drawn = scenes.training_scenes(rng, 4, without=held_out.scenes())
    trainer = Trainer(((tower, LEARNING_RATE), (labels_of, LEARNING_RATE)), STEPS)
    see = torch.compile(tower, dynamic=False)
    progress = Progress(STEPS, "pictures")
    for step in range(STEPS):
        batch = list(islice(drawn, BATCH_SCENES_PER_WORKER))
        pixels, labels = painter.paint(batch), scenes.cell_labels(batch)
        loss = labels_of.losses(see(pixels), labels)
        trainer.step(step, loss)
        if worker > 0:
            continue
        progress.step(loss.item(), 2 * len(batch))
        if (step + 1) % STEPS_BETWEEN_VALIDATIONS == 0:
            validation = sorted({case.scene for case in held_out.validation})
            with torch.no_grad():
                shape, color, size = labels_of.right(tower(painter.paint(validation)), scenes.cell_labels(validation))
            print(f"validation  shape {shape:.1%}  color {color:.1%}  size {size:.1%}", flush=True)
            save_file(tower.state_dict(), output)
