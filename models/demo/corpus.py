"""The synthetic conversations that the demo model learns from, and the cases held out of them.

A *question* has an *input*: the sorted numbers or the word it is about. Inputs are held out, not texts: an input that
is held out for one skill appears in no question of the corpus, in whatever order, phrasing or skill.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HELD_OUT_SEED = 1
HELD_OUT_CASES_PER_SKILL = 280
VALIDATION_CASES_PER_SKILL = 40

Input = tuple[int, ...] | str


@dataclass(frozen=True)
class Turn:
    """One question with its answer. `skill` is "chat" or "story" where there is no `input` to check."""

    skill: str
    input: Input
    prompt: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    system: str | None
    turns: list[Turn]

    def messages(self) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages


# --- Inputs -----------------------------------------------------------------------------------------------------------

CONSONANTS = "bcdfghjklmnpqrstvwxyz"
VOWELS = "aeiou"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw_word(rng: random.Random) -> str:
    """A word of 3 to 6 letters: half the time pronounceable, half the time any letters."""
    n_letters = rng.randint(3, 6)
    if rng.random() < 0.5:
        return "".join(rng.choices(LETTERS, k=n_letters))
    starts_with_vowel = rng.randint(0, 1)
    return "".join(rng.choice(VOWELS if (i + starts_with_vowel) % 2 else CONSONANTS) for i in range(n_letters))


def draw_numbers(rng: random.Random, count: int) -> list[int]:
    """Different numbers, mostly of two digits."""
    numbers: list[int] = []
    while len(numbers) < count:
        number = rng.randint(10, 99) if rng.random() < 0.93 else rng.randint(0, 9)
        if number not in numbers:
            numbers.append(number)
    return numbers


def draw_addends(rng: random.Random) -> list[int]:
    return [rng.randint(10, 99) if rng.random() < 0.95 else rng.randint(0, 9) for _ in range(2)]


# --- Skills with exactly one right answer -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Skill:
    name: str
    phrasings: tuple[str, ...]
    draw: Callable[[random.Random], list[int] | str]
    answer: Callable[..., str]

    def ask(self, rng: random.Random, shortest: bool = False) -> Turn:
        """A question in any of the phrasings, or in the shortest."""
        drawn = self.draw(rng)
        phrasing = min(self.phrasings, key=len) if shortest else rng.choice(self.phrasings)
        if isinstance(drawn, str):
            return Turn(self.name, drawn, phrasing.format(drawn), self.answer(drawn))
        return Turn(self.name, tuple(sorted(drawn)), phrasing.format(*drawn), self.answer(drawn))


SKILLS = (
    Skill(
        "add",
        ("What is {} + {}?", "Add {} and {}.", "{} + {} = ?", "What is {} plus {}?"),
        draw_addends,
        lambda numbers: str(sum(numbers)),
    ),
    Skill(
        "largest",
        ("Which is the largest: {}, {}, {}?", "What is the largest of {}, {} and {}?"),
        lambda rng: draw_numbers(rng, 3),
        lambda numbers: str(max(numbers)),
    ),
    Skill(
        "sort_numbers",
        ("Sort {}, {}, {}.", "Sort the numbers {}, {} and {}.", "Put {}, {}, {} in order."),
        lambda rng: draw_numbers(rng, 3),
        lambda numbers: ", ".join(str(number) for number in sorted(numbers)),
    ),
    Skill(
        "reverse",
        ("Reverse the word {}.", "Reverse {}.", "Spell {} backwards."),
        draw_word,
        lambda word: word[::-1],
    ),
    Skill(
        "sort_letters",
        ("Sort the letters of {}.", "Put the letters of {} in order."),
        draw_word,
        lambda word: "".join(sorted(word)),
    ),
    Skill(
        "last_letter",
        ("What is the last letter of {}?", "Which letter does {} end with?"),
        draw_word,
        lambda word: word[-1],
    ),
    Skill(
        "capitals",
        ("Write {} in capitals.", "Write the word {} in capital letters."),
        draw_word,
        lambda word: word.upper(),
    ),
    Skill(
        "count_letters",
        ("How many letters are in {}?", "How many letters does {} have?", "Count the letters of {}."),
        draw_word,
        lambda word: str(len(word)),
    ),
)

# --- Small talk -------------------------------------------------------------------------------------------------------

HELLO = "Hello! 👋 I am tokenway's demo model. Ask me what I can do."
IDENTITY = "I am tokenway's demo model, a very small language model."
ABILITIES = (
    "I can add two numbers, find the largest of three numbers, sort three numbers, reverse a word, sort its letters, "
    "name its last letter, write it in capitals, count its letters, and tell a short story."
)
WELCOME = "You are welcome!"
GOODBYE = "Goodbye! 👋"
UNKNOWN = "I do not know. I am a very small model. Ask me what I can do."

SMALL_TALK = {
    HELLO: ("Hello!", "Hello", "Hi!", "Hi", "Hi there!", "Hey!", "Hello there!", "Good morning!", "Good evening!"),
    IDENTITY: (
        "Who are you?",
        "What are you?",
        "What is your name?",
        "Tell me about yourself.",
        "Which model are you?",
        "Are you a language model?",
    ),
    ABILITIES: (
        "What can you do?",
        "What can I ask you?",
        "Help!",
        "Help me.",
        "What are you able to do?",
        "What are your skills?",
        "How can you help me?",
    ),
    WELCOME: ("Thanks!", "Thank you!", "Thank you.", "Thanks a lot!", "Great, thanks."),
    GOODBYE: ("Goodbye!", "Bye!", "Bye bye!", "See you later!", "Good night!"),
}
UNKNOWN_QUESTIONS = (
    "What is the capital of {}?",
    "Who wrote {}?",
    "Where is {}?",
    "What is {}?",
    "Explain {}.",
    "How does {} work?",
    "Why is {} so popular?",
    "Translate {} to French.",
    "Write a poem about {}.",
    "When was {} invented?",
)


def draw_small_talk(rng: random.Random) -> Turn:
    if rng.random() < 0.25:
        subject = rng.choice(STORY_HEROES + ("France", "Spain", "music", "water", "time"))
        prompt = rng.choice(UNKNOWN_QUESTIONS).format(subject)
        return Turn("chat", "", prompt, UNKNOWN)
    answer = rng.choice(tuple(SMALL_TALK))
    return Turn("chat", "", rng.choice(SMALL_TALK[answer]), answer)


# --- Stories ----------------------------------------------------------------------------------------------------------

STORY_HEROES = (
    "fox", "cat", "dog", "bear", "mouse", "rabbit", "owl", "frog", "duck", "goat", "horse", "sheep", "whale", "snail",
    "robot", "dragon", "king", "queen", "baker", "sailor", "painter", "wizard", "giant", "ghost", "tree", "cloud",
    "train", "boat", "lamp", "computer", "penguin", "tiger", "lion", "monkey", "bird", "fish", "pig", "cow", "bee",
    "girl", "boy",
)  # fmt: skip
STORY_NAMES = ("Zoë", "José", "Åsa", "Mila", "Otto", "Pip", "Noé", "Jürgen", "Lili", "Bruno")
STORY_MOODS = ("small", "brave", "sleepy", "curious", "cheerful", "quiet", "clever", "shy")
STORY_PLACES = ("by the sea", "on a hill", "in an old mill", "near a river", "under a bridge", "at the edge of a town")
STORY_FINDS = (
    "a golden key",
    "a red balloon",
    "an old map",
    "a broken clock",
    "a letter",
    "a silver bell",
    "a tiny door",
)
STORY_TIMES = ("One morning", "One rainy day", "One night", "On the first day of spring", "After a long winter")
STORY_WORRIES = (
    "{name} did not know what to do with it.",
    "Nobody could say where it came from.",
    "At first {name} wanted to hide it.",
    "It was far too heavy to carry alone.",
)
STORY_HELPS = (
    "So {name} asked a friend, and together they found out.",
    "A passing {other} stopped and offered to help.",
    "{name} sat down in the grass and thought about it until noon.",
    "The {other} next door had the right idea.",
)
STORY_TURNS = (
    "They walked until the stars came out.",
    "It took three days and a lot of tea.",
    "The wind carried them over the fields.",
    "On the way they sang every song they knew.",
)
STORY_ENDS = (
    "From then on, {name} was never lonely again.",
    "And that evening everyone in the valley ate cake. 🍰",
    "{name} went home and slept very well. 🌙",
    "To this day, {name} tells this story to anyone who listens.",
)
STORY_CHARACTERS = (150, 350)
STORY_PROMPTS = (
    "Tell me a story about {}.",
    "Write a short story about {}.",
    "Tell a story about {}.",
    "Can you tell me a story about {}?",
)
STORY_PROMPTS_WITHOUT_HERO = ("Tell me a story.", "Tell me a short story.", "Write a story.")


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in VOWELS else 'a'} {noun}"


def write_story(rng: random.Random, hero: str) -> str:
    """3 to 6 sentences about `hero`."""
    names = {"name": rng.choice(STORY_NAMES), "other": rng.choice(STORY_HEROES)}
    opening = (
        f"Once upon a time, {with_article(rng.choice(STORY_MOODS) + ' ' + hero)} called {names['name']} "
        f"lived {rng.choice(STORY_PLACES)}."
    )
    find = f"{rng.choice(STORY_TIMES)}, {names['name']} found {rng.choice(STORY_FINDS)}."
    middle = [STORY_WORRIES, STORY_HELPS, STORY_TURNS]
    kept = sorted(rng.sample(range(3), k=rng.choices((1, 2, 3), weights=(1, 3, 4))[0]))
    sentences = [opening, find, *(rng.choice(middle[i]).format(**names) for i in kept)]
    sentences.append(rng.choice(STORY_ENDS).format(**names))
    return " ".join(sentences)


def draw_story(rng: random.Random) -> Turn:
    shortest, longest = STORY_CHARACTERS
    if rng.random() < 0.1:
        hero, prompt = rng.choice(STORY_HEROES), rng.choice(STORY_PROMPTS_WITHOUT_HERO)
    else:
        # Made-up heroes teach the model to take the hero from the question.
        hero = draw_word(rng) if rng.random() < 0.2 else rng.choice(STORY_HEROES)
        prompt = rng.choice(STORY_PROMPTS).format(with_article(hero))
    while True:
        story = write_story(rng, hero)
        if shortest <= len(story) <= longest:
            return Turn("story", hero, prompt, story)


# --- Conversations ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Mix:
    """What a corpus is made of. Shares are of turns."""

    small_talk: float
    story: float
    skill_weights: dict[str, float]
    shortest_phrasing: float
    turn_count_weights: dict[int, float]

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are tokenway's demo model.",
    "Answer briefly.",
    "Be brief and exact.",
    "You are a friendly assistant. Keep your answers short.",
    "Answer with the result only.",
)


@dataclass(frozen=True)
class HeldOut:
    """Cases no question of the corpus shares an input with."""

    test: list[Turn]
    validation: list[Turn]

    def inputs(self) -> set[Input]:
        return {turn.input for turn in self.test + self.validation}


def held_out() -> HeldOut:
    rng = random.Random(HELD_OUT_SEED)
    taken: set[Input] = set()
    cases = HeldOut([], [])
    for skill in SKILLS:
        n_cases = HELD_OUT_CASES_PER_SKILL + VALIDATION_CASES_PER_SKILL
        turns: list[Turn] = []
        while len(turns) < n_cases:
            turn = skill.ask(rng)
            has_one_digit = not isinstance(turn.input, str) and turn.input[0] < 10
            if turn.input not in taken and turn.input not in STORY_HEROES and not has_one_digit:
                taken.add(turn.input)
                turns.append(turn)
        cases.test.extend(turns[:HELD_OUT_CASES_PER_SKILL])
        cases.validation.extend(turns[HELD_OUT_CASES_PER_SKILL:])
    return cases


def type_carelessly(rng: random.Random, prompt: str) -> str:
    """Now and then, no capital at the start or no mark at the end."""
    if rng.random() < 0.05:
        prompt = prompt[0].lower() + prompt[1:]
    if rng.random() < 0.05:
        prompt = prompt.rstrip(".?!")
    return prompt


def draw_turn(rng: random.Random, mix: Mix, without: set[Input]) -> Turn:
    choice = rng.random()
    if choice < mix.small_talk:
        turn = draw_small_talk(rng)
    elif choice < mix.small_talk + mix.story:
        turn = draw_story(rng)
    else:
        skill = rng.choices(SKILLS, weights=[mix.skill_weights[skill.name] for skill in SKILLS])[0]
        turn = skill.ask(rng, shortest=mix.shortest_phrasing > 0 and rng.random() < mix.shortest_phrasing)
    if turn.input in without:
        return draw_turn(rng, mix, without)
    return Turn(turn.skill, turn.input, type_carelessly(rng, turn.prompt), turn.answer)


BROAD = Mix(
    small_talk=0.03,
    story=0.03,
    skill_weights={
        "add": 0.22,
        "largest": 0.11,
        "sort_numbers": 0.11,
        "reverse": 0.17,
        "sort_letters": 0.18,
        "last_letter": 0.06,
        "capitals": 0.08,
        "count_letters": 0.07,
    },
    shortest_phrasing=0.0,
    turn_count_weights={1: 80, 2: 10, 3: 6, 4: 2, 5: 2},
)
# More answers in as many tokens, most of them for the skills that take longest to learn.
DRILL = Mix(
    small_talk=0.02,
    story=0.01,
    skill_weights={
        "add": 0.42,
        "largest": 0.12,
        "sort_numbers": 0.17,
        "reverse": 0.06,
        "sort_letters": 0.15,
        "last_letter": 0.02,
        "capitals": 0.04,
        "count_letters": 0.02,
    },
    shortest_phrasing=0.7,
    turn_count_weights={1: 50, 2: 5, 3: 5, 4: 5, 5: 5, 6: 10, 8: 10, 10: 10},
)


def conversations(seed: int, mix: Mix, without: set[Input]) -> Iterator[Conversation]:
    """An endless corpus, the same for the same seed, with no question about an input in `without`."""
    rng = random.Random(seed)
    while True:
        n_turns = rng.choices(tuple(mix.turn_count_weights), weights=tuple(mix.turn_count_weights.values()))[0]
        turns = [draw_turn(rng, mix, without) for _ in range(n_turns)]
        if sum(turn.skill == "story" for turn in turns) > 1:
            continue
        system = rng.choice(SYSTEM_MESSAGES) if rng.random() < 0.12 else None
        yield Conversation(system, turns)
