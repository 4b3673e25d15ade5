"""The sentences of the toy tasks: one function a task, from a random generator and a wanted label to a text or two.

In every task some rows are easy, decided by a word or by the order of two neighbours, and some follow only from how
the sentence is built: the agreement of a subject with a verb far away, the scope of a negation, who did what to whom,
what a quantifier allows to conclude. A few trained parameters learn the first and more of them also the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from random import Random

Texts = tuple[str, ...]

_TIMES = ("today", "last week", "on Monday", "this morning", "after lunch", "in the spring", "yesterday", "at noon")
_PLACES = ("in the park", "at the station", "near the harbour", "at work", "on the train", "at home")
_PEOPLE = (
    "nurse", "pilot", "farmer", "lawyer", "singer", "baker", "teacher", "driver", "doctor", "painter",
    "judge", "student",
)  # fmt: skip


def acceptability(rng: Random, label: int) -> Texts:
    """Whether a sentence is grammatical (1): order, verb forms, and agreement across what stands between."""
    plural = rng.random() < 0.5
    head, other = rng.sample(_PEOPLE, 2)
    subject = _number(head, plural)
    between = _number(other, plural if rng.random() < 2 / 3 else not plural)
    right = plural if label else not plural  # the number of the form that must agree with the subject
    time, state, past = rng.choice(_TIMES), rng.choice(_STATES), rng.choice(_REFLEXIVE_VERBS)
    near = rng.choice(("near", "behind", "beside", "next to", "in front of"))
    admired = rng.choice(("admired", "avoided", "called", "followed", "trusted", "noticed"))
    shape = rng.choice((0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7))  # the easy ones more often
    if shape == 0:
        return _sentence(f"the {subject} {_be(right)} {state} {time}")
    if shape == 1:
        end = f"{_be(plural)} {state}" if label else f"{state} {_be(plural)}"
        return _sentence(f"{time} the {subject} {end}")
    if shape == 2:
        left = "left" if label else rng.choice(("leave", "leaves"))
        return _sentence(f"the {subject} {_have(plural)} {left} {rng.choice(_LEAVINGS)}")
    if shape == 3:
        this = "these" if right else "this"
        return _sentence(f"the {between} {admired} {this} {state} {subject} {time}")
    if shape == 4:
        return _sentence(f"the {subject} {near} the {between} {_be(right)} {state} {time}")
    if shape == 5:
        return _sentence(f"the {subject} that the {between} {admired} {_have(right)} left {rng.choice(_LEAVINGS)}")
    if shape == 6:
        myself = "themselves" if right else "himself"
        return _sentence(f"the {subject} {near} the {between} {past} {myself} {time}")
    # "ever" needs a negation above it; one inside the relative clause does not reach it.
    outer, inner = ("no", "the") if label else ("the", "no")
    return _sentence(f"{outer} {head} that {inner} {other} {admired} has ever been {state}")


def sentiment(rng: Random, label: int) -> Texts:
    """Whether the writer liked it (1): negation turns a word round, and the main clause outweighs the concession."""
    sign = 1 if label else -1
    shape = rng.randrange(10)
    if shape < 5:
        return _sentence(f"{opinion(rng, sign)} {rng.choice(_TIMES)}")
    if shape == 5:
        return _sentence(f"although {opinion(rng, -sign)}, {opinion(rng, sign)}")
    if shape == 6:
        return _sentence(f"{opinion(rng, sign)}, even though {opinion(rng, -sign)}")
    if shape == 7:
        return _sentence(f"{opinion(rng, -sign)}, but {opinion(rng, sign)}")
    if shape == 8:
        friend = rng.choice(("my sister", "my neighbour", "the critic", "everyone else"))
        return _sentence(f"{friend} found it {_adjective(rng, rng.choice((-1, 1)))}, but {opinion(rng, sign)}")
    turned = rng.choice(("nobody believes that", "I do not think that", "it is not true that", "I doubt that"))
    return _sentence(f"{turned} {opinion(rng, -sign)}")


def intent(rng: Random, label: int) -> Texts:
    """What is asked for, out of six: of two requests in a sentence, the one that is meant."""
    thing = rng.choice(("table", "flight", "room", "taxi", "lesson", "ticket", "meeting", "boat", "tour", "seat"))
    other = rng.choice([index for index in range(len(INTENTS)) if index != label])
    wanted, refused = (rng.choice(_REQUESTS[index]) for index in (label, other))
    what = f"the {rng.choice(('early', 'late', 'cheap', 'second', 'usual', 'small', 'other'))} {thing}"
    want_what, want_it = wanted.format(what), wanted.format("it")
    refuse_what, refuse_it = refused.format(what), refused.format("it")
    when = rng.choice(("", " " + rng.choice(_TIMES), " please"))
    shapes = (
        f"{want_what}{when}",
        f"do not {refuse_what}, {want_it}{when}",
        f"{want_what}{when} and do not {refuse_it}",
        f"I would rather {want_what} than {refuse_it}{when}",
        f"{refuse_what}, or no, {want_it}{when}",
        f"why did you {refuse_what} when I asked you to {want_it}",
    )
    return _sentence(rng.choice(shapes))


def paraphrase(rng: Random, label: int) -> Texts:
    """Whether two sentences say the same (1): in other words, active or passive, or with the roles exchanged."""
    agent, patient, third = rng.sample(_PEOPLE, 3)
    deed, other = rng.sample(_DEEDS, 2)
    place, elsewhere = rng.sample(_PLACES, 2)
    first = _deed(rng, deed, agent, patient, place)
    if label:
        while (second := _deed(rng, deed, agent, patient, place)) == first:
            pass  # the same words again would be no paraphrase
        return *first, *second
    change = rng.randrange(4)
    if change == 0:
        return *first, *_deed(rng, other, agent, patient, elsewhere)
    if change == 1:
        return *first, *_deed(rng, deed, *rng.choice(((agent, third), (third, patient))), elsewhere)
    if change == 2:
        return *first, *_deed(rng, other, third, patient, place)
    return *first, *_deed(rng, deed, patient, agent, place)


def inference(rng: Random, label: int) -> Texts:
    """What a premise says of a hypothesis: entailment (0), neutral (1), contradiction (2), by quantifiers alone."""
    premise, hypothesis = rng.choice(inferences()[label])
    narrow, wide = rng.choice(_KINDS)
    colour = rng.choice(("", "", "old ", "young ", "small ", "tall ", "pretty ", "famous "))
    doing, place = rng.choice(_DOINGS), rng.choice(("in the garden", "by the river", "on the hill", "in the barn"))
    time = rng.choice(_TIMES)

    def say(statement: _Statement) -> str:
        quantifier, of_narrow, done_narrow = statement
        done = f"{doing} {place}" if done_narrow else doing
        return f"{time} {rng.choice(_QUANTIFIERS[quantifier])} {colour}{narrow if of_narrow else wide} {done}"

    return *_sentence(say(premise)), *_sentence(say(hypothesis))


def similarity(rng: Random, label: int) -> Texts:
    """How alike two reports are, from 0 to 5 (`label`): how many of who, what, whom, where and when they share.

    Words of one meaning count as the same.
    """
    kept = set(rng.sample(range(5), label))
    a, b, c, d = rng.sample(_PEOPLE, 4)
    deed, other = rng.sample(_DEEDS, 2)
    place, elsewhere = rng.sample(_PLACES, 2)
    time, later = rng.sample(_TIMES, 2)
    return *_deed(rng, deed, a, b, place, time), *_deed(
        rng,
        deed if 0 in kept else other,
        a if 1 in kept else c,
        b if 2 in kept else d,
        place if 3 in kept else elsewhere,
        time if 4 in kept else later,
    )


INTENTS = ("book", "cancel", "move", "price", "confirm", "pay")

_REQUESTS = (
    ("book {}", "reserve {}", "order {}", "arrange {}"),
    ("cancel {}", "call {} off", "give {} up", "drop {}"),
    ("move {}", "put {} off", "reschedule {}", "bring {} forward"),
    ("ask the price of {}", "compare the cost of {}", "find out the rate for {}", "get a quote for {}"),
    ("confirm {}", "double-check {}", "verify {}", "make sure of {}"),
    ("pay for {}", "settle the bill for {}", "transfer the money for {}", "cover the cost of {}"),
)
_STATES = ("happy", "tired", "late", "ready", "famous", "angry", "busy", "young", "proud", "hungry", "calm", "rich")
_LEAVINGS = ("at last", "without a word", "for good", "on foot", "in a hurry", "too early", "by train", "in silence")
_REFLEXIVE_VERBS = ("hurt", "blamed", "praised", "washed", "taught", "introduced", "surprised", "defended")
GOOD = ("wonderful", "charming", "clever", "brilliant", "lovely", "touching", "superb", "fresh", "delightful")
BAD = ("dull", "awful", "clumsy", "boring", "terrible", "tedious", "weak", "stale", "dreadful")
_ASPECTS = ("plot", "acting", "music", "ending", "cast", "script", "food", "service", "staff", "view", "sound", "pace")
TURNED = ("was not", "was never", "was hardly", "was far from", "was anything but", "did not seem")
_PLAIN = ("was", "was really", "was without doubt", "seemed", "was nothing if not", "was truly")
# Meanings, each in two wordings: active with a gap for the patient, and passive.
_DEEDS = (
    (("thanked {}", "was thanked by"), ("expressed gratitude to {}", "received the gratitude of")),
    (("phoned {}", "was phoned by"), ("rang {} up", "was rung up by")),
    (("helped {}", "was helped by"), ("lent {} a hand", "was lent a hand by")),
    (("blamed {}", "was blamed by"), ("held {} responsible", "was held responsible by")),
    (("paid {}", "was paid by"), ("gave money to {}", "was given money by")),
    (("followed {}", "was followed by"), ("went after {}", "was pursued by")),
    (("teased {}", "was teased by"), ("made fun of {}", "was made fun of by")),
    (("watched {}", "was watched by"), ("kept an eye on {}", "was observed by")),
    (("rescued {}", "was rescued by"), ("saved {} from danger", "was saved from danger by")),
    (("greeted {}", "was greeted by"), ("said hello to {}", "was said hello to by")),
)
_KINDS = (
    ("dogs", "animals"), ("roses", "flowers"), ("sparrows", "birds"), ("nurses", "workers"), ("girls", "children"),
    ("poets", "artists"), ("horses", "animals"), ("bakers", "workers"), ("owls", "birds"), ("boys", "children"),
)  # fmt: skip
_DOINGS = ("slept", "waited", "rested", "stayed", "were found", "were lost", "were seen", "gathered")
_QUANTIFIERS = {
    "all": ("all", "all the"),
    "some": ("some", "a few"),
    "no": ("no", "none of the"),
    "not all": ("not all",),
}

_Statement = tuple[str, bool, bool]  # quantifier; of the narrow kind; did the narrow thing


@cache
def inferences() -> tuple[list[tuple[_Statement, _Statement]], ...]:
    """Every pair of statements by its relation, found by trying all small worlds.

    A world says which of six sorts of individuals exist: of the narrow kind or only of the wide one; doing the
    narrow thing, only the wide one, or neither. Individuals of both kinds are presumed to exist.
    """
    cells = list(itertools.product((True, False), (2, 1, 0)))
    worlds = [
        world
        for size in range(len(cells) + 1)
        for world in itertools.combinations(cells, size)
        if {narrow for narrow, _ in world} == {True, False}
    ]

    def holds(statement: _Statement, world: Sequence[tuple[bool, int]]) -> bool:
        quantifier, of_narrow, done_narrow = statement
        done = [doing >= (2 if done_narrow else 1) for narrow, doing in world if narrow or not of_narrow]
        return {"all": all(done), "some": any(done), "no": not any(done), "not all": not all(done)}[quantifier]

    statements = list(itertools.product(_QUANTIFIERS, (True, False), (True, False)))
    found: tuple[list[tuple[_Statement, _Statement]], ...] = ([], [], [])
    for premise, hypothesis in itertools.permutations(statements, 2):
        outcomes = {holds(hypothesis, world) for world in worlds if holds(premise, world)}
        found[1 if len(outcomes) == 2 else 0 if outcomes == {True} else 2].append((premise, hypothesis))
    return found


def opinion(rng: Random, sign: int) -> str:
    """A clause of the given polarity, turned by a negation a third of the time."""
    turned = rng.random() < 1 / 3
    verb = rng.choice(TURNED if turned else _PLAIN)
    return f"the {rng.choice(_ASPECTS)} {verb} {_adjective(rng, -sign if turned else sign)}"


def _adjective(rng: Random, sign: int) -> str:
    return rng.choice(GOOD if sign > 0 else BAD)


def _deed(
    rng: Random, wordings: Sequence[tuple[str, str]], agent: str, patient: str, place: str, time: str = ""
) -> Texts:
    """Who did what to whom, in one of the deed's wordings, active or passive."""
    active, passive = rng.choice(wordings)
    shapes = (
        f"the {agent} {active.format(f'the {patient}')} {place} {time}",
        f"the {patient} {passive} the {agent} {place} {time}",
    )
    return _sentence(rng.choice(shapes).strip())


def _number(noun: str, plural: bool) -> str:
    return f"{noun}s" if plural else noun


def _be(plural: bool) -> str:
    return "were" if plural else "was"


def _have(plural: bool) -> str:
    return "have" if plural else "has"


def _sentence(text: str) -> Texts:
    return (f"{text[0].upper()}{text[1:]}.",)
