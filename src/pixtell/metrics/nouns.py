"""Words -> which of the nouns that captions name most often they hold.

In: PTB words. Out: nouns in the singular. The list was made by hand: the nouns among the six hundred words
that most of Flickr8k's training captions use, and the common things of pictures at home and in the street
that Flickr8k shows seldom. It needs no tagger: words that are as often no noun (play, front, look) are left
out.
"""

from collections.abc import Iterable

_REGULAR = """
    animal apron arm backpack bag ball band bar basketball bat bathroom beach bear beard bed bench bicycle
    bike biker bikini bird boat book boot bottle bowl boy bridge building bus cake camera canoe cap car
    cart cat chair child city cliff climber clock coat collar computer costume couch counter court cow crowd
    cup cyclist desk dock dog door dress ear elephant eye face family fence field fire fish flag floor flower
    food football forest fork fountain frisbee fruit garden giraffe girl glove goal goat goggle grass
    greyhound ground guitar guy hair hand harness hat helmet hill hockey horse house hurdle ice jacket jean
    jersey kayak keyboard kid kitchen kite lady lake lamp laptop leaf leash leg man microphone mirror
    motorcycle mountain mouth mud net nose ocean oven pant park path person phone picture pillow pizza
    plane plant plate player playground pole pond pool puddle puppy race racket raft ramp rider river road
    rock room rope sand sandwich scarf scooter sea sheep shelf shirt shoe shop shore sidewalk sign sink
    skateboard skateboarder ski skier skirt sky slope snow snowboard snowboarder soccer sofa stair statue
    stick stone store street suit sunglass sunset surfboard surfer sweater table team tennis tent tie toddler
    toilet tongue toy track trail train trampoline tree truck tunnel umbrella uniform vase vegetable vehicle
    vest volleyball wall water waterfall wave wheel window wood yard zebra"""

# one noun by several names, and plurals that no rule makes
_FORMS = {
    "men": "man",
    "women": "woman",
    "woman": "woman",
    "children": "child",
    "people": "person",
    "leaves": "leaf",
    "shelves": "shelf",
    "feet": "foot",
    "foot": "foot",
    "baby": "baby",
    "babies": "baby",
    "cellphone": "phone",
    "t-shirt": "shirt",
    "t-shirts": "shirt",
    "motorbike": "motorcycle",
    "motorbikes": "motorcycle",
    "bicyclist": "cyclist",
    "bicyclists": "cyclist",
}


def _plurals(noun: str) -> list[str]:
    """'dog' -> 'dogs'; 'bench' -> 'benches'; 'puppy' -> 'puppies'."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return [f"{noun[:-1]}ies"]
    return [f"{noun}es"] if noun.endswith(("s", "sh", "ch", "x")) else [f"{noun}s"]


_NOUN_OF = {form: noun for noun in _REGULAR.split() for form in (noun, *_plurals(noun))} | _FORMS


def nouns_of(words: Iterable[str]) -> set[str]:
    """The listed nouns among these words: 'two dogs run' -> {'dog'}."""
    return {_NOUN_OF[word] for word in words if word in _NOUN_OF}
