# ruff: noqa: RUF001  (quotes and dashes that look alike are what this file tells apart)
"""Caption -> PTB words: lower case, punctuation removed.

In: one caption, as people or models write it. Out: the words that pycocoevalcap's `PTBTokenizer` gives for
it, without Java. The table below describes the tokens of the Penn Treebank as the Stanford tokeniser 3.4.1
cuts them: behaviour that is observed by running that program, and held to it in
`tests/metrics/test_ptb.py`. As there, the longest match wins, and of two equally long the first row.

Two differences, both on purpose. A caption is cut alone, as if only an empty line came after it: a line
separator inside it (`\\r`, U+2028, ...) is a space and never shifts the captions that follow, and the next
caption's first word has no say. There "the letter P." loses its full stop where the next caption begins with
"A": 6 of Flickr30k's 135,911 captions, and none when that program is given each alone. And letters newer
than that program's Unicode, such as U+0528, are letters, where it drops them.

What is left, each rarer than one in 10,000 captions made of such pieces: a capital sigma next to digits or
hyphens becomes another of the two small ones; U+0130, a capital I with a dot, is no i inside a row's words;
an address of one emoji ("http://" and nothing else) is no address; and labels of addresses end at 64
characters, tags and file names at a few hundred, so that no text, whatever it repeats, takes more than linear
time.
"""

import re
import sys
from collections.abc import Callable

# What pycocoevalcap removes after cutting. Brackets stay, as -lrb- and so on: its list has them in
# capitals.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# --- Shapes: the rows see ASCII and `_NAMED` as they are and one stand-in for each other character.

_LETTER, _MARK, _DIGIT, _SYMBOL, _UNKNOWN = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
_NAMED = frozenset(
    "\x80\x82\x84\x91\x92\x93\x94\x96\x97\xa0¢£¤¥«\xad²³¹»¼½¾\u058a\u066b\u066c‐‑–—―‘’‚‛“”„‟…‹›⁄⁰⁴⁵⁶⁷⁸⁹⁺⁻₀₁₂₃₄₅₆₇₈₉₊₋₠€⅓⅔、"
)
_MARKS = """
    2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2
    5c4-5c5 5c7 615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c
    93e-94e 951-955 962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f a81-a83
    abc abe-acf b82 bbe-bc2 bc6-bc8 bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1
    eb4-ebc ec8-ecd"""
_SYMBOLS = """
    a1 a5-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b
    61e-61f 66a 66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 2020-2023 2030-2038 203b 203e-2042
    207c-207e 208c-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e
    213a-213b 2140-2144 214a-214d 214f 2155-215e 2190-2bff 3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40
    ff5b-ff65 ffe0-ffe1 ffe5-ffe6"""


def _code_points(ranges: str) -> frozenset[int]:
    """'a1 a5-a7' -> {0xa1, 0xa5, 0xa6, 0xa7}."""
    pairs = [(part.split("-")[0], part.split("-")[-1]) for part in ranges.split()]
    return frozenset(code for first, last in pairs for code in range(int(first, 16), int(last, 16) + 1))


class _Shapes(dict[int, str]):
    """Code point -> its shape, for `str.translate`; filled as characters are met."""

    marks, symbols = _code_points(_MARKS), _code_points(_SYMBOLS)

    def __missing__(self, code: int) -> str:
        self[code] = shape = self._shape_of(code)
        return shape

    def _shape_of(self, code: int) -> str:
        character = chr(code)
        if code < 0x80 or character in _NAMED:
            return character
        if code > 0xFFFF:  # the Java program sees two halves of a character and drops both
            return _UNKNOWN
        if code in self.marks:
            return _MARK
        if code in self.symbols:
            return _SYMBOL
        if 0x2000 <= code <= 0x200A or code == 0x3000:
            return "\u3000"
        return _LETTER if character.isalpha() else _DIGIT if character.isdecimal() else _UNKNOWN


_SHAPES = _Shapes()

# --- Pieces of rows. ASCII ranges heed case, (?i:...) does not: so does the Java program.

_SPACE = "[ \t\xa0\u3000]"
_BREAK = "[ \t\xa0\u3000\n]"  # two \n stand behind every caption, so that a row can look past its end
_L = f"(?:[A-Za-z{_LETTER}{_MARK}\xad]|&[aeiouAEIOU](?i:acute|grave|uml);)"
_LD = f"(?:[A-Za-z0-9{_LETTER}{_MARK}{_DIGIT}\xad]|&[aeiouAEIOU](?i:acute|grave|uml);)"
_D = f"[0-9{_DIGIT}]"
_ALPHA = f"[A-Za-z{_LETTER}]"
_ALNUM = f"[A-Za-z0-9{_LETTER}{_DIGIT}]"
_APOS = "(?:['\x92’]|(?i:&apos;))"
_TICK = "(?:['\x92’`\x91‘‛]|(?i:&apos;))"
_CLITIC = f"{_APOS}(?i:[msd]|re|ve|ll)"
_WORD = f"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_PART = f"(?:[dDoOlL]{_TICK}{_ALNUM})?{_ALNUM}+"
_COMPOUND = f"{_PART}(?:[-_\u058a‐‑]{_PART})*"
_NUMBER = f"(?:{_D}*(?:[.:,\xad\u066b\u066c]{_D}+)+|{_D}+)"
_ACRONYM = r"(?i:[a-z](?:\.[a-z])+|(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-(?:u\.k|u\.s\.s\.r))"
_HYPHENED = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]{{0,200}}(?:-(?:{_ACRONYM}\.|[A-Za-z0-9\xad]+))+"
_JOINED = "[A-Z]+(?:(?:(?i:&amp;)|[+&])[A-Z]+)+"  # AT&T
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = rf"""[ ]+{_NAME}(?:[ ]*=[ ]*(?:'[^']*'|"[^"]*"))?"""
_TAG = rf"<(?:[!?][A-Za-z-][^>\n]{{0,500}}|/{_NAME}|{_NAME}(?:{_ATTRIBUTE})*[ ]*/?)[ ]*>"
_URL = r"""[^ \t\n"<>|(){}]+[^ \t\n"<>|.!?(){},-]"""
_PATH = r"""[^ \t\n"<>|()]+[^ \t\n"<>|.!?(){},-]"""
_WWW = r"""(?i:www)\.(?:[^ \t\n"<>|.!?(){},]{1,64}\.){1,10}[a-zA-Z]{2,4}"""
_DOT_COM = r"""(?:[^ \t\n"`'<>|.!?(){},-_$]{1,64}\.){1,10}(?i:com|net|org|edu)"""
_MAIL = r"""[^ \t\n"<>|(){}\xa0"""
_PHONE = (
    r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
    r"[0-9]{3,4}[- \xa0]?[0-9]{3,5}|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_FILE_TYPES = """
    bat bmp bz2 c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl
    png ppt pptx ps py sql tar txt wav wma wmv x xml zip"""

# Abbreviations keep their full stop; open ones end with it even where a letter follows: jan. | x, but mr.x
_OPEN_ABBREVIATIONS = r"""
    jan feb mar apr jun jul aug sept? oct nov dec mon tues? wed thu(?:rs)? fri ala ariz calif colo conn ct
    dak fla ga ind kans? ky md mich minn mo mont neb nev okla penn tenn va vt wisc? wyo inc cos? corp
    pp?t(?-i:[ye])s? ltd plc rt bancorp bhd assn univ intl sys tel est ext sq jr sr bros (?:ed|ph)\.d blvd
    rd esq etc al seq bldg"""
_STATES = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"  # words of their own when written small
_CLOSED_ABBREVIATIONS = """
    invt elec natl m(?-i:[ft])g dept mrs? ms drs? profs? sens? reps? attys? lt col gen messrs govs? adm
    rev maj sgt cpl pvt capt ste? ave pres lieut hon brig co?mdr pfc spc supts? det mt ft adj adv asst
    assoc ens insp mlle mme msgr sfc alex wm jos cie cf vs treas ph"""
_NUMBERED_ABBREVIATIONS = "nos? figs? art op pp? ca prop"  # only before a figure: "no. 5"
_SENTENCE_STARTERS = r"""
    About According Additionally After An As At But Earlier He Her Here However If In It Last Many More
    Mr\. Ms\. Now Once One Other Our She Since So Some Such That The Their Then There These They This We
    What When While Yet You"""


def _any(words: str) -> str:
    return "|".join(words.split())


def _capital(words: str) -> str:
    """Alternatives whose first letter is a capital and whose others are of either case."""
    return "|".join(f"{word[0]}(?i:{word[1:]})" for word in words.split())


_OPEN = rf"(?:(?i:{_any(_OPEN_ABBREVIATIONS)})|{_capital(_STATES)})\."
_CLOSED = rf"(?i:{_any(_CLOSED_ABBREVIATIONS)})\."

# --- What a token becomes.

_QUOTES = str.maketrans(
    {"\x91": "`", "‘": "`", "‛": "`", "‹": "`", "\x92": "'", "’": "'", "›": "'"}
    | {"\x93": "``", "“": "``", "«": "``", "\x94": "''", "”": "''", "»": "''", '"': "''"}
)
_ROUND_BRACKETS = {ord("("): "-lrb-", ord(")"): "-rrb-"}
_BRACKETS = _ROUND_BRACKETS | str.maketrans({"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"})
_SIGNS = {"\x80": "$", "¤": "$", "₠": "$", "€": "$", "£": "#", "¢": "cents"} | (
    {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
)


def _lower(token: str) -> str:
    return token.replace("\xad", "").lower()  # without soft hyphens


def _remove(token: str) -> str:
    return ""


def _straighten_quotes(token: str) -> str:
    return token.replace("&apos;", "'").replace("&quot;", "''").translate(_QUOTES).lower()


def _unescape(token: str) -> str:
    return token.lower().replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")


def _name_brackets(token: str) -> str:
    return token.translate(_BRACKETS)


def _name_round_brackets(token: str) -> str:
    return token.translate(_ROUND_BRACKETS).lower()


def _keep_together(token: str) -> str:
    """A token with spaces inside stays one word: they become no-break spaces."""
    return token.replace(" ", "\xa0").lower()


def _name_number(token: str) -> str:
    return _keep_together(_name_round_brackets(token))


def _spell_sign(token: str) -> str:
    return _SIGNS.get(token, token.lower())


# --- The table. A row is a pattern and what its token becomes. Where a group matched, the token is the
# group; what follows it counts for the length of the match and is cut again.

Render = Callable[[str], str]
ROWS: tuple[tuple[str, Render], ...] = (
    (rf"{_SPACE}+", _remove),
    (r"(?i:(can)not)", _lower),
    (r"(?i:(gon(?=na)|got(?=ta)|wan(?=na)|lem(?=me)|gim(?=me))(?:na|ta|me))", _lower),
    (r"('[tT])(?i:is|was)", _lower),  # 't | is
    (_TAG, _keep_together),
    (r"&(?i:md|mdash|ndash|nbsp);|[\x96\x97–—―]", _remove),
    (r"(?i:&amp;|&lt;|&gt;)", _unescape),
    (r"&(?i:ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);", _lower),  # entities of old corpora
    (rf"({_WORD}){_CLITIC}", _lower),  # dog | 's
    (rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*)[nN]{_TICK}[tT]", _lower),  # do | n't
    (_WORD, _lower),
    (rf"{_APOS}[nN]{_APOS}?|{_APOS}(?i:em|till?|cause|[2-9]0s)|(?i:[ldj]|dunkin|somethin|ol){_APOS}", _lower),
    (rf"[A-HJ-XZn]{_TICK}{_ALPHA}{{2,}}|(?i:c{_APOS}est|cap{_APOS}n|o{_TICK}o)", _lower),
    (r"(?i:c'mon|nat'l|e'er|s'mores|ev'ry|li'l|nor'easter|cont'd\.)", _lower),
    (rf"{_ALPHA}+[aeiouyAEIOUY]{_TICK}[aeiouA-Z]{_ALPHA}*", _lower),  # ne'er
    (rf"([yY]{_APOS}){_ALPHA}", _lower),  # y' | all
    (rf"(?i:https?)://{_URL}", str.lower),
    (rf"(?:{_WWW}|{_DOT_COM})(?:/{_PATH})?", str.lower),
    (rf"(?:<|(?i:&lt;))?[a-zA-Z0-9]{_MAIL}]{{0,200}}@(?:{_MAIL}.]+\.)*{_MAIL}.]+(?:>|(?i:&gt;))?", str.lower),
    (rf"@[A-Za-z_][A-Za-z_0-9]*|\#{_L}+", str.lower),
    (rf"({_CLITIC})[^A-Za-z]", _straighten_quotes),
    (r"(')[A-Za-z][^ \t\n\xa0]", _remove),  # an opening quote
    (_CLITIC, _straighten_quotes),
    (rf"[nN]{_TICK}[tT]", _straighten_quotes),
    (rf"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}|[-+]?{_NUMBER}", _lower),
    (rf"(?:{_D}{{1,4}}[- \xa0])?{_D}{{1,4}}(?:\\?/|⁄){_D}{{1,4}}", _keep_together),  # 2 1/2
    (r"(?i:-(?:lrb|rrb|lcb|rcb|lsb|rsb)-|c\.d\.s|pro-|anti-|s(?:&|&amp;)(?:p-500|ls)|c'est)", _unescape),
    (rf"({_APOS}[0-9][0-9]){_BREAK}", _lower),  # '80
    (rf"({_OPEN})(?s:..)|{_OPEN}|{_CLOSED}|(?:{_ACRONYM}|[A-Za-z])\.", _lower),
    (rf"([A-Za-z])\.{_BREAK}+(?:A|{_capital(_SENTENCE_STARTERS)}|{_TAG}){_BREAK}", _lower),
    (rf"((?i:{_any(_NUMBERED_ABBREVIATIONS)})\.){_BREAK}?{_D}", _lower),  # no. 5
    (rf"({_LD}{{1,200}}(?:\.{_LD}{{1,200}}){{0,5}}\.(?i:{_any(_FILE_TYPES)}))(?:{_BREAK}|[.?!,])", str.lower),
    (_PHONE, _name_number),
    (rf"[`\x91-\x94‘-‟‹›«»]{{1,2}}|''|\"|(?i:&quot;)|{_APOS}", _straighten_quotes),
    (r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _name_round_brackets),  # :-)
    (r"[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)", _name_round_brackets),
    (r"[\[\](){}]", _name_brackets),
    (r"-{1,4}(?!-)|\.{3,5}|(?:\.[ \xa0]){2,4}\.|…", _remove),
    (r"\*+|(?:\\\*){1,3}|[?!]+|[,;:.=/]|-+|\#\#+|@@+|__+|<<|>>|[cC]\+\+|[cCfF]\#", _lower),
    (rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}", _lower),  # black/white
    (r"[A-Z]*\$|\#|[¢£¤¥\x80₠€¼½¾⅓⅔]", _spell_sign),
    (_HYPHENED, _lower),  # 1.5-inch
    (_COMPOUND, _lower),  # t-shirt
    (rf"((?:{_WORD}|{_HYPHENED}|{_COMPOUND})\.)[,;:、]", _lower),  # yard., is yard. before a comma
    (_JOINED, _unescape),
    (rf"({_JOINED}\.)[,;:、]", _unescape),
    (r"[⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+)", _lower),  # m | ²
    (rf"[%&+~^|\\@$<>_⁺⁻₊₋¥‚„‟⁄、{_SYMBOL}]", _lower),
)

_COMPILED = tuple((re.compile(pattern), render) for pattern, render in ROWS)

# --- The short road: plain words with a space, or a comma and a space, behind them. No row that begins with
# letters reaches over a space, unless a full stop stands before it.

_PLAIN_WORDS = re.compile("(?: (?![\t\xa0\u3000])|[A-Za-z]+,?(?= )|[A-Za-z]+(?=\n))+")
_LAST_WORD = re.compile(r"([A-Za-z]{2,}|)\. *\n")
_ABBREVIATION = re.compile(rf"{_OPEN}|{_CLOSED}")
_SPLIT_WORDS = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na"} | (
    {"lemme": "lem me", "gimme": "gim me"}
)
_LINE_BREAKS = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")


def ptb_words(caption: str) -> list[str]:
    """The PTB words of one caption; empty where it holds nothing but punctuation.

    "A dog's ball (red), 2 1/2 feet." -> a | dog | 's | ball | -lrb- | red | -rrb- | 2\xa01/2 | feet
    """
    text = _LINE_BREAKS.sub(" ", caption)
    shape = (text if text.isascii() else text.translate(_SHAPES)) + "\n\n"
    words: list[str] = []
    position = 0
    while position < len(text):
        if plain := _PLAIN_WORDS.match(shape, position):
            words += _plain_words(plain[0])
            position = plain.end()
        elif (last := _LAST_WORD.match(shape, position)) and not _ABBREVIATION.match(last[0]):
            return words + _plain_words(last[1])
        else:
            word, position = _cut(text, shape, position)
            if word and word not in PUNCTUATION:
                words.append(sys.intern(word))
    return words


def _plain_words(text: str) -> list[str]:
    words = text.lower().replace(",", "").split()
    if not _SPLIT_WORDS.keys().isdisjoint(words):
        words = " ".join(_SPLIT_WORDS.get(word, word) for word in words).split()
    return list(map(sys.intern, words))  # one string for all captions with the word: a quarter of the memory


def _cut(text: str, shape: str, start: int) -> tuple[str, int]:
    """What the token at `start` becomes and where it ends. A character without a row becomes nothing."""
    longest, end = start, start + 1
    render: Render = _remove
    for pattern, row_render in _COMPILED:
        match = pattern.match(shape, start)
        if match and match.end() > longest:
            longest, render = match.end(), row_render
            end = match.end(match.lastindex or 0)
    return render(text[start:end]), end
