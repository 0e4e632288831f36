"""Synthetic scenes of coloured shapes, the questions about them, and the scenes that are held out.

A scene has 3 by 3 cells of `CELL` pixels with at most one thing in each. A picture is drawn with a jitter of places,
sizes and colours, so that the same scene never looks the same twice.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from corpus import Turn, with_article

CELLS_A_SIDE = 3
N_CELLS = CELLS_A_SIDE**2
THINGS_MAX = 4
CELL = 24
SIDE = CELLS_A_SIDE * CELL

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLORS = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 80, 215),
    "yellow": (240, 205, 40),
    "purple": (145, 55, 175),
    "orange": (245, 135, 30),
}
COLOR_NAMES = tuple(COLORS)
SIZES = ("small", "large")
RADII = {"small": (4.5, 6.0), "large": (9.0, 11.0)}
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")

HELD_OUT_SEED = 2
HELD_OUT_SCENES = 60
VALIDATION_SCENES = 40

# --- Scenes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Thing:
    cell: int
    shape: str
    color: str
    size: str

    @property
    def name(self) -> str:
        return f"{self.size} {self.color} {self.shape}"


# In the order of their cells.
Scene = tuple[Thing, ...]


def draw_scene(rng: random.Random, things_max: int = THINGS_MAX) -> Scene:
    n_things = rng.choices(range(1, things_max + 1), weights=(2, 3, 3, 2)[:things_max])[0]
    cells = sorted(rng.sample(range(N_CELLS), n_things))
    return tuple(Thing(cell, rng.choice(SHAPES), rng.choice(COLOR_NAMES), rng.choice(SIZES)) for cell in cells)


# --- Questions --------------------------------------------------------------------------------------------------------


def place_phrase(cell: int) -> str:
    return "in the center" if PLACES[cell] == "center" else f"at the {PLACES[cell]}"


def only_one(rng: random.Random, scene: Scene, attribute: Callable[[Thing], object]) -> Thing | None:
    """One of the things that share `attribute` with no other."""
    values = [attribute(thing) for thing in scene]
    alone = [thing for thing, value in zip(scene, values, strict=True) if values.count(value) == 1]
    return rng.choice(alone) if alone else None


@dataclass(frozen=True)
class Question:
    """`cells` says for each letter of the answer and for its end at which cells to look, if any."""

    prompt: str
    answer: str
    cells: tuple[tuple[int, ...], ...]


def about(things: Scene, prompt: str, answer: str) -> Question:
    """A question whose answer is seen at `things`."""
    return Question(prompt, answer, (tuple(thing.cell for thing in things),) * (len(answer) + 1))


def ask_color(rng: random.Random, scene: Scene) -> Question | None:
    thing = only_one(rng, scene, lambda thing: thing.shape)
    return thing and about((thing,), f"What color is the {thing.shape}?", thing.color)


def ask_shape(rng: random.Random, scene: Scene) -> Question | None:
    thing = only_one(rng, scene, lambda thing: thing.color)
    return thing and about((thing,), f"Which shape is {thing.color}?", thing.shape)


def ask_count(rng: random.Random, scene: Scene) -> Question:
    # Half the questions are about something that is there.
    there = rng.random() < 0.5
    match rng.randrange(3):
        case 0:
            return about(scene, "How many shapes are there?", str(len(scene)))
        case 1:
            color = rng.choice(scene).color if there else rng.choice(COLOR_NAMES)
            alike = tuple(thing for thing in scene if thing.color == color)
            return about(alike, f"How many shapes are {color}?", str(len(alike)))
        case _:
            shape = rng.choice(scene).shape if there else rng.choice(SHAPES)
            plural = "crosses" if shape == "cross" else f"{shape}s"
            alike = tuple(thing for thing in scene if thing.shape == shape)
            return about(alike, f"How many {plural} are there?", str(len(alike)))


def ask_position(rng: random.Random, scene: Scene) -> Question | None:
    thing = only_one(rng, scene, lambda thing: (thing.color, thing.shape))
    return thing and about((thing,), f"Where is the {thing.color} {thing.shape}?", PLACES[thing.cell])


def ask_size(rng: random.Random, scene: Scene) -> Question | None:
    thing = only_one(rng, scene, lambda thing: (thing.color, thing.shape))
    return thing and about((thing,), f"Is the {thing.color} {thing.shape} small or large?", thing.size)


def ask_cell(rng: random.Random, scene: Scene) -> Question:
    cell = rng.choice(scene).cell if rng.random() < 0.7 else rng.randrange(N_CELLS)
    there = next((thing for thing in scene if thing.cell == cell), None)
    answer = with_article(there.name) if there else "nothing"
    return Question(f"What is {place_phrase(cell)}?", answer, ((cell,),) * (len(answer) + 1))


def ask_presence(rng: random.Random, scene: Scene) -> Question:
    """Half the answers are yes; the others mix up what is there where they can."""
    if rng.random() < 0.5:
        thing = rng.choice(scene)
        color, shape = thing.color, thing.shape
    else:
        color = rng.choice([thing.color for thing in scene] if rng.random() < 0.5 else COLOR_NAMES)
        shape = rng.choice([thing.shape for thing in scene] if rng.random() < 0.5 else SHAPES)
    alike = tuple(thing for thing in scene if thing.color == color and thing.shape == shape)
    return about(alike, f"Is there {with_article(f'{color} {shape}')}?", "yes" if alike else "no")


def ask_caption(_: random.Random, scene: Scene) -> Question:
    parts = [f"{with_article(thing.name)} {place_phrase(thing.cell)}" for thing in scene]
    # Whether a comma follows or the end is seen at the next thing, which is there or not.
    next_cells = [thing.cell for thing in scene[1:]]
    cells = [(scene[0].cell,)] * len(parts[0])
    for cell, part in zip(next_cells, parts[1:], strict=True):
        cells.extend([(cell,)] * len(f", {part}"))
    return Question("Describe the image.", ", ".join(parts), (*cells, (scene[-1].cell,)))


@dataclass(frozen=True)
class SceneTurn(Turn):
    """`cells` as a question has them."""

    cells: tuple[tuple[int, ...], ...] = ()


def turn_of(skill: str, question: Question) -> SceneTurn:
    return SceneTurn(skill, "", question.prompt, question.answer, question.cells)


def describe(rng: random.Random, scene: Scene) -> tuple[Thing, str] | None:
    """A thing with one word that no other has: `the ring`, `the red shape`."""
    by_shape = only_one(rng, scene, lambda thing: thing.shape)
    by_color = only_one(rng, scene, lambda thing: thing.color)
    described = [(thing, word) for thing, word in ((by_shape, "{0.shape}"), (by_color, "{0.color} shape")) if thing]
    if not described:
        return None
    thing, word = rng.choice(described)
    return thing, word.format(thing)


def ask_simply(rng: random.Random, scene: Scene, skill: str) -> SceneTurn | None:
    """A question that needs one property only: a step towards those that need more."""
    described = describe(rng, scene)
    if skill == "position" and described:
        thing, words = described
        return turn_of(skill, about((thing,), f"Where is the {words}?", PLACES[thing.cell]))
    if skill == "size" and described:
        thing, words = described
        return turn_of(skill, about((thing,), f"Is the {words} small or large?", thing.size))
    if skill == "cell":
        thing = rng.choice(scene)
        asked, answer = rng.choice((("What color", thing.color), ("Which shape", thing.shape)))
        return turn_of(skill, about((thing,), f"{asked} is {place_phrase(thing.cell)}?", answer))
    if skill == "presence":
        shape = rng.choice(SHAPES)
        alike = tuple(thing for thing in scene if thing.shape == shape)
        return turn_of(skill, about(alike, f"Is there {with_article(shape)}?", "yes" if alike else "no"))
    return ask(rng, scene, skill)


SKILLS: dict[str, Callable[[random.Random, Scene], Question | None]] = {
    "color": ask_color,
    "shape": ask_shape,
    "count": ask_count,
    "position": ask_position,
    "size": ask_size,
    "cell": ask_cell,
    "presence": ask_presence,
    "caption": ask_caption,
}


def ask(rng: random.Random, scene: Scene, skill: str) -> SceneTurn | None:
    """A question with its answer, or none where the scene does not allow one of this skill."""
    question = SKILLS[skill](rng, scene)
    return question and turn_of(skill, question)


# --- Held out ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`picture` is the seed of the scene's picture."""

    scene: Scene
    picture: int
    turn: Turn


@dataclass(frozen=True)
class HeldOut:
    """Cases of scenes that are in no training sample, a question of each skill for each scene."""

    test: list[Case]
    validation: list[Case]

    def scenes(self) -> set[Scene]:
        return {case.scene for case in self.test + self.validation}


def held_out() -> HeldOut:
    rng = random.Random(HELD_OUT_SEED)
    by_scene: dict[Scene, list[Case]] = {}
    while len(by_scene) < HELD_OUT_SCENES + VALIDATION_SCENES:
        scene = draw_scene(rng)
        turns = [ask(rng, scene, skill) for skill in SKILLS]
        # One thing alone leaves little to hold out: nearly all such scenes would be in the corpus otherwise.
        if scene not in by_scene and all(turns):
            picture = len(by_scene)
            by_scene[scene] = [Case(scene, picture, turn) for turn in turns]
    cases = list(by_scene.values())
    test, validation = cases[:HELD_OUT_SCENES], cases[HELD_OUT_SCENES:]
    return HeldOut([case for of_scene in test for case in of_scene], [case for of in validation for case in of])


def training_scenes(rng: random.Random, things_max: int, without: set[Scene]) -> Iterator[Scene]:
    while True:
        scene = draw_scene(rng, things_max)
        if scene not in without:
            yield scene


# --- Pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """How one thing is drawn: its radius and its centre within the cell, in pixels of the cell."""

    radius: float
    x: float
    y: float


def draw_look(rng: random.Random, size: str) -> Look:
    radius = rng.uniform(*RADII[size])
    room = CELL / 2 - radius - 0.5
    return Look(radius, CELL / 2 + rng.uniform(-room, room), CELL / 2 + rng.uniform(-room, room))


def draw_mask(shape: str, look: Look, scale: int) -> Image.Image:
    """How much of each pixel the shape covers, 0 to 255, `CELL * scale` pixels a side."""
    finer = 4
    unit = scale * finer
    mask = Image.new("L", (CELL * unit, CELL * unit))
    pen = ImageDraw.Draw(mask)

    def box(half_width: float, half_height: float, fill: int = 255, form: Callable = pen.rectangle) -> None:
        x, y = look.x * unit, look.y * unit
        width, height = half_width * unit, half_height * unit
        form((x - width, y - height, x + width, y + height), fill=fill)

    radius = look.radius
    match shape:
        case "circle":
            box(radius, radius, form=pen.ellipse)
        case "ring":
            box(radius, radius, form=pen.ellipse)
            box(radius * 0.55, radius * 0.55, fill=0, form=pen.ellipse)
        case "square":
            box(radius * 0.88, radius * 0.88)
        case "cross":
            box(radius, radius * 0.3)
            box(radius * 0.3, radius)
        case "triangle":
            corners = ((0, -radius), (-radius, radius * 0.8), (radius, radius * 0.8))
            pen.polygon([((look.x + x) * unit, (look.y + y) * unit) for x, y in corners], fill=255)
    return mask.reduce(finer)


def draw_background(rng: random.Random) -> tuple[int, int, int]:
    light = rng.randint(228, 255)
    return tuple(min(255, light + rng.randint(-4, 4)) for _ in range(3))


def draw_color(rng: random.Random, color: str) -> tuple[int, int, int]:
    return tuple(min(255, max(0, value + rng.randint(-14, 14))) for value in COLORS[color])


def draw_picture(scene: Scene, seed: int, scale: int = 4) -> Image.Image:
    """RGB, `SIDE * scale` pixels a side."""
    rng = random.Random(seed)
    picture = Image.new("RGB", (SIDE * scale, SIDE * scale), draw_background(rng))
    for thing in scene:
        mask = draw_mask(thing.shape, draw_look(rng, thing.size), scale)
        row, column = divmod(thing.cell, CELLS_A_SIDE)
        corner = (column * CELL * scale, row * CELL * scale)
        picture.paste(Image.new("RGB", mask.size, draw_color(rng, thing.color)), corner, mask)
    return picture


class Painter:
    """Draws the pictures of many scenes at once, from masks drawn in advance.

    The masks are shrunk from four times their size, as the model's processor shrinks a picture of `draw_picture`.
    """

    def __init__(self, seed: int, masks_of_each: int = 1500):
        rng = random.Random(seed)
        self.random = torch.Generator().manual_seed(seed)
        self.rng = rng
        self.masks = {
            (shape, size): torch.from_numpy(
                np.stack([self.draw_small_mask(shape, draw_look(rng, size)) for _ in range(masks_of_each)])
            )
            for shape in SHAPES
            for size in SIZES
        }

    def draw_small_mask(self, shape: str, look: Look) -> np.ndarray:
        scale = self.rng.choice((1, 2, 4))
        mask = draw_mask(shape, look, scale)
        return np.asarray(mask.resize((CELL, CELL), Image.Resampling.BICUBIC))

    def paint(self, scenes: list[Scene]) -> Tensor:
        """`[n_scenes, 3, SIDE, SIDE]`, f32, as the processor normalises pixels: from -1 to 1."""
        pixels = torch.empty(len(scenes), 3, CELLS_A_SIDE, CELL, CELLS_A_SIDE, CELL)
        for picture, scene in zip(pixels, scenes, strict=True):
            background = torch.tensor(draw_background(self.rng), dtype=torch.float32)[:, None, None]
            picture[:] = background[:, :, None, None]
            for thing in scene:
                masks = self.masks[thing.shape, thing.size]
                mask = masks[self.rng.randrange(len(masks))] / 255
                color = torch.tensor(draw_color(self.rng, thing.color), dtype=torch.float32)[:, None, None]
                row, column = divmod(thing.cell, CELLS_A_SIDE)
                picture[:, row, :, column, :] = background + mask * (color - background)
        pixels += torch.randn(pixels.shape, generator=self.random) * 2.0
        return (pixels.view(len(scenes), 3, SIDE, SIDE).clamp(0, 255) / 127.5) - 1


def cell_labels(scenes: list[Scene]) -> Tensor:
    """For each cell the class of its shape, colour and size, 0 where it is empty: `[n, N_CELLS, 3]`, i64."""
    labels = torch.zeros(len(scenes), N_CELLS, 3, dtype=torch.long)
    for index, scene in enumerate(scenes):
        for thing in scene:
            classes = (SHAPES.index(thing.shape), COLOR_NAMES.index(thing.color), SIZES.index(thing.size))
            labels[index, thing.cell] = torch.tensor(classes) + 1
    return labels
