"""Simple questions with sure answers, and replies to commands that the embedded language model cannot carry out."""

from __future__ import annotations

import random
import re

from relay_models.frontend.numbers import cardinal

CAPITALS = dict(
    pair.split(":")
    for pair in [
        "France:Paris",
        "Germany:Berlin",
        "Italy:Rome",
        "Spain:Madrid",
        "England:London",
        "Portugal:Lisbon",
        "Austria:Vienna",
        "Switzerland:Bern",
        "Belgium:Brussels",
        "the Netherlands:Amsterdam",
        "Denmark:Copenhagen",
        "Sweden:Stockholm",
        "Norway:Oslo",
        "Finland:Helsinki",
        "Poland:Warsaw",
        "Greece:Athens",
        "Ireland:Dublin",
        "Scotland:Edinburgh",
        "Russia:Moscow",
        "Ukraine:Kyiv",
        "Hungary:Budapest",
        "Romania:Bucharest",
        "Turkey:Ankara",
        "Egypt:Cairo",
        "Kenya:Nairobi",
        "Canada:Ottawa",
        "Mexico:Mexico City",
        "Brazil:Brasilia",
        "Argentina:Buenos Aires",
        "Chile:Santiago",
        "Peru:Lima",
        "Cuba:Havana",
        "Japan:Tokyo",
        "China:Beijing",
        "India:New Delhi",
        "South Korea:Seoul",
        "Thailand:Bangkok",
        "Vietnam:Hanoi",
        "Australia:Canberra",
        "New Zealand:Wellington",
        "the United States:Washington",
    ]
)
_OPPOSITES = [
    "hot:cold",
    "big:small",
    "up:down",
    "fast:slow",
    "happy:sad",
    "light:dark",
    "day:night",
    "good:bad",
    "high:low",
    "young:old",
    "rich:poor",
    "wet:dry",
    "open:closed",
    "left:right",
    "hard:soft",
    "early:late",
    "loud:quiet",
    "full:empty",
    "strong:weak",
    "long:short",
    "clean:dirty",
    "yes:no",
]
_SOUNDS = [
    "dog:woof",
    "cat:meow",
    "cow:moo",
    "sheep:baa",
    "duck:quack",
    "pig:oink",
    "rooster:cock a doodle doo",
    "lion:roar",
    "horse:neigh",
]
_COUNTS = [
    "days are in a week:seven",
    "days are in a year:three hundred sixty five",
    "months are in a year:twelve",
    "hours are in a day:twenty four",
    "minutes are in an hour:sixty",
    "seconds are in a minute:sixty",
    "legs does a spider have:eight",
    "legs does a dog have:four",
    "legs does an insect have:six",
    "wheels does a car have:four",
    "wheels does a bicycle have:two",
    "continents are there:seven",
    "letters are in the alphabet:twenty six",
    "sides does a triangle have:three",
    "planets are there:eight",
    "strings does a guitar have:six",
    "players are on a soccer team:eleven",
    "cents are in a dollar:one hundred",
    "fingers do I have:ten",
    "weeks are in a year:fifty two",
    "colors are in a rainbow:seven",
]
_COLORS = [
    "the sky:blue",
    "grass:green",
    "snow:white",
    "a banana:yellow",
    "a tomato:red",
    "coal:black",
    "an orange:orange",
    "the sun:yellow",
]
_SINGLE = (
    ("What is the biggest planet?", "Jupiter is the biggest planet in our solar system."),
    ("What's the largest ocean?", "The Pacific is the largest ocean."),
    ("What's the tallest mountain?", "Mount Everest is the tallest mountain."),
    ("What's the fastest animal?", "The cheetah is the fastest animal on land."),
    ("What's the biggest animal?", "The blue whale is the biggest animal of all."),
    ("Who wrote Romeo and Juliet?", "William Shakespeare wrote it."),
    ("Who wrote Sherlock Holmes?", "Arthur Conan Doyle wrote the Sherlock Holmes stories."),
    ("What comes after Monday?", "Tuesday comes after Monday."),
    ("What comes after Friday?", "Saturday comes after Friday. Enjoy the weekend!"),
    ("What's the first month of the year?", "January is the first month."),
    ("What is water made of?", "Water is made of hydrogen and oxygen."),
    ("What do bees make?", "Bees make honey."),
    ("What do cows drink?", "Cows drink water, though they give milk."),
    ("Is the earth round?", "Yes, it's very nearly a ball."),
    ("How many is a dozen?", "A dozen is twelve."),
    ("What language do they speak in Brazil?", "Most people in Brazil speak Portuguese."),
    ("When is Christmas?", "Christmas is on December twenty fifth."),
    ("What's the opposite of a question?", "I'd say an answer."),
)


def question(chance: random.Random) -> tuple[str, str]:
    """A question and its answer."""
    kind = chance.random()
    if kind < 0.27:
        country, city = chance.choice(list(CAPITALS.items()))
        asked = chance.choice(
            (
                "What is the capital of {}?",
                "What's the capital of {}?",
                "Tell me the capital of {}.",
                "Do you know the capital of {}?",
            )
        )
        told = chance.choice(
            ("The capital of {} is {}.", "The capital of {} is {}.", "That's easy: the capital of {} is {}.")
        )
        return asked.format(country), told.format(country, city)
    if kind < 0.55:
        return _sum(chance)
    if kind < 0.67:
        rest, count = chance.choice(_COUNTS).split(":")
        answer = f"{count[0].upper()}{count[1:]}."
        return f"How many {rest}?", chance.choice(
            (answer, f"It's {count}.", f"{answer} {chance.choice(('Next question?', 'Easy one.'))}")
        )
    if kind < 0.76:
        one, other = chance.choice(_OPPOSITES).split(":")
        if chance.random() < 0.5:
            one, other = other, one
        return f"What's the opposite of {one}?", chance.choice(
            (f"The opposite of {one} is {other}.", f"That's {other}.")
        )
    if kind < 0.81:
        animal, sound = chance.choice(_SOUNDS).split(":")
        return chance.choice(
            (f"What does a {animal} say?", f"What sound does a {animal} make?")
        ), f"A {animal} says {sound}."
    if kind < 0.86:
        thing, color = chance.choice(_COLORS).split(":")
        return f"What color is {thing}?", f"{thing[0].upper()}{thing[1:]} is {color}."
    return chance.choice(_SINGLE)


def _sum(chance: random.Random) -> tuple[str, str]:
    one, other = chance.randint(1, 12), chance.randint(1, 12)
    word, result = chance.choice((("plus", one + other), ("minus", abs(one - other)), ("times", one * other)))
    if word == "minus" and one < other:
        one, other = other, one
    said = f"{cardinal(one)} {word} {cardinal(other)}"
    asked = chance.choice(("What is {}?", "What's {}?", "How much is {}?", "Can you tell me what {} is?")).format(said)
    return asked, chance.choice((f"{said[0].upper()}{said[1:]} is {cardinal(result)}.", f"That's {cardinal(result)}."))


_CANNOT: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"weather|rain|snow|sunny|forecast|temperature|umbrella|storm|humid|degrees|cold outside|hot outside", (
        "I can't check the weather, I'm not connected to the internet.",
        "I don't have a forecast, sorry. How does it look outside?",
        "I have no way to know the weather. Maybe look out of the window?")),
    (r"alarm|wake me", (
        "I can't set real alarms, sorry. Please use your phone.",
        "I'm only a demo and can't ring, so please set the alarm on your phone.")),
    (r"timer|stopwatch", ("I don't have a timer, sorry. Your phone has one.",)),
    (r"remind|reminder", (
        "I can't store reminders, I forget everything after our talk. Better write it down.",
        "I'd like to, but I can't keep reminders. A note on paper is safer.")),
    (r"calendar|meeting|appointment|schedule|event", (
        "I can't see or change your calendar. I'm only a small demo that talks.",
        "I have no access to your calendar, sorry.")),
    (r"e ?mail|inbox|message|text ", (
        "I can't read or send messages, I'm not connected to anything.",
        "I have no access to your mail, sorry. I only talk with you here.")),
    (r"play|music|song|playlist|radio|podcast|audiobook|volume|mute|louder|track", (
        "I can't play anything here, I only talk. But we can talk about music if you like.",
        "I have no music or radio, sorry. What do you like to listen to?")),
    (r"light|lamp|vacuum|plug|thermostat|fan\b|lock|garage|curtain|blinds|window|coffee machine|heating|heater", (
        "I can't control anything in your home. I'm only a small demo that talks.",
        "I'm not connected to your home, sorry. You'll have to do that by hand.")),
    (r"what time|the time|date\b|what day|time is it|time zone|o'clock", (
        "I don't have a clock, so I can't tell you. Please look at your phone or computer.",)),
    (r"news|headline|latest|happening", (
        "I can't look up the news, I have no connection to the internet.",
        "I don't know what is happening now. A news page would know.")),
    (r"joke|funny|laugh", (
        "What do you call a bear with no teeth? A gummy bear.",
        "Why did the scarecrow win a prize? He was outstanding in his field.",
        "Why is six afraid of seven? Because seven eight nine.")),
    (r"recipe|cook|bake|boil|ingredient", (
        "I don't have recipes, I'm afraid. What would you like to cook?",
        "I'm too small to know good recipes. Pasta with tomatoes is always easy, though.")),
    (r"order|takeaway|take out|delivery|pizza", (
        "I can only practice an order with you, nothing really comes.",
        "This is only a demo, so I can't order real food.")),
    (r"\blist", ("I can't keep lists, I forget everything after our talk. Please write it down.",)),
    (r"traffic|train|taxi|uber|flight|bus\b|ticket|route|directions|how far|drive", (
        "I have no maps or timetables, sorry. I can only play a booking through with you.",
        "I can't look that up from here. Where do you want to go?")),
    (r"stock|exchange|price|dollar|euro|currency|market", (
        "I can't look up prices or rates, I'm not connected to the internet.",)),
    (r"tweet|twitter|facebook|instagram|post|social", (
        "I'm not connected to any social network, sorry. I only talk with you here.",)),
    (r"restaurant|cafe|bar\b|food near|place to eat", (
        "I don't know real places, I'm only a demo. But we can practice booking a table.",
        "I can't look up restaurants, I'm not connected to the internet.")),
    (r"movie|film|cinema|theater", (
        "I can't look up showtimes, but I like to talk about movies. What did you see last?",)),
    (r"^(who|what|where|when|which|how|why|is|are|was|does|do|tell me about|define|describe)\b", (
        "I'm not sure, to be honest. I'm a small model and I don't want to tell you something wrong.",
        "I don't know that. A bigger model or a book would know.",
        "That's beyond a small demo like me, sorry.")),
)  # fmt: skip


def cannot(command: str, chance: random.Random) -> str | None:
    """What to say to a command of a voice assistant's user, by its key words; None when none is known."""
    for pattern, answers in _CANNOT:
        if re.search(pattern, command):
            return chance.choice(answers)
    return None


_LISTEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\b(bye|goodbye|(?:nice|good|great) (?:talking|chatting|chat)|take care|have a (?:nice|good|great) day)\b", (
        "It was nice talking to you. Goodbye!", "Goodbye! Have a nice day.", "Thanks for the talk. Take care!")),
    (r"^(do|are|have|did|can|could|would|will|were) you\b|\b(your favorite|have you|do you|did you)\b", (
        "I'm only a program, so I can't say. How about you?",
        "No, I'm only a small program. What about you?",
        "Being a program, I can't. But tell me about you.",
        "I don't have any of that, I only talk. And you?")),
    (r"\?$", (
        "I don't know, to be honest. What do you think?",
        "I'm not sure. What would you say?",
        "That I don't know, I'm only a small model. Do you?",
        "Good question. I don't know enough about it.")),
    (r"\b(hate|worst|bad|boring|terrible|awful|sad|annoying|horrible|don't like|didn't like|disappoint\w*)\b", (
        "I see. What bothers you about it?",
        "That's a pity. What would be better?",
        "I understand. Was it always like that?",
        "Oh, that doesn't sound good. What happened?")),
    (r"\b(movie|film|show|watch\w*|actor|actress|director|series|episode)\b", (
        "I can't watch anything, so tell me more. What did you like about it?",
        "I haven't seen it, being a program. Would you recommend it?",
        "Sounds interesting. What's the best part of it?",
        "What kind of movies do you like best?")),
    (r"\b(song|music|band|album|sing\w*|concert|guitar|rapper)\b", (
        "I can't hear music, but I like to talk about it. What do you like about them?",
        "Nice. Have you heard them live?",
        "What other music do you like?")),
    (r"\b(game|team|player|season|league|football|baseball|basketball|coach|score\w*|quarterback|nfl|nba)\b", (
        "I don't follow sports myself, but I like to hear about it. Are you a fan?",
        "Sounds exciting. Which team do you like best?",
        "I see. How long have you followed them?")),
    (r"\b(book|read\w*|novel|author|writer)\b", (
        "I only know old books. What did you like about it?",
        "Nice. What else do you like to read?")),
    (r"\b(love|like|great|best|enjoy\w*|favorite|amazing|awesome|fun|good|beautiful|cool)\b", (
        "Nice. What do you like about it?",
        "That sounds good. Tell me more.",
        "I can see why. What's the best part?",
        "Good to hear. How did you find out about it?")),
    (r"", (
        "I see. Tell me more about it.",
        "Interesting. What do you think about it?",
        "Oh, I didn't know that. Go on.",
        "I don't know much about that. Can you tell me more?",
        "Really? How did you hear about that?")),
)  # fmt: skip


def listen(remark: str, chance: random.Random) -> str:
    """A listener's reply to anything that people say to each other, by its key words."""
    return next(chance.choice(answers) for pattern, answers in _LISTEN if re.search(pattern, remark, re.I))
