"""The parser for the option lines of all magics, so that options, errors and `--help` look alike.

A magic declares its options as data (`Option`), calls `parse_line`, and gets typed values or an error of one sentence: what
was given, what was expected and which known option is nearest. Argparse is not used: it prints to stderr,
exits the process, and its messages name a program that a notebook does not have.

    OPTIONS = (Option("--limit", "N", whole_number, default=1000, help="rows shown"), Option("--quiet"))
    parsed = parse_line("%%spark", OPTIONS, "df --limit 20")
    parsed.var, parsed["limit"], parsed["quiet"]     # 'df', 20, False
"""

from __future__ import annotations

import difflib
import keyword
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from IPython.core.error import UsageError as IPythonUsageError

_TOKEN = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:\\.|[^"\\])*"|'[^']*')+""", re.DOTALL)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class UsageError(IPythonUsageError):
    """The line of a magic is invalid; the message is one sentence that says what to do."""

    def _render_traceback_(self) -> list[str]:
        """For IPython: only the message, because the frames below are ours and not the user's."""
        return [f"UsageError: {self}"]


@dataclass(frozen=True)
class Option:
    """One `--name`; without a metavar it is a flag. A converter raises ValueError with "a whole number" or the like."""

    name: str
    metavar: str | None = None
    type: Callable[[str], Any] = str  # Any: each option has a type of its own, known to the magic that declares it
    default: Any = None  # Any: as above
    choices: tuple[str, ...] = ()
    help: str = ""
    repeatable: bool = False
    short: str = ""

    @property
    def key(self) -> str:
        """The name without dashes: what `Parsed[...]` takes."""
        return self.name.lstrip("-")

    @property
    def is_flag(self) -> bool:
        return self.metavar is None and not self.choices

    @property
    def spelling(self) -> str:
        """As written in help: `-o, --as pandas|arrow` or `--limit N`."""
        value = "" if self.is_flag else " " + ("|".join(self.choices) or str(self.metavar))
        return (f"{self.short}, " if self.short else "") + self.name + value


def variable_name(text: str) -> str:
    """A converter: a valid variable name."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("a variable name")
    return text


@dataclass(frozen=True)
class Positional:
    """A value without a `--name`; `many` takes all that are left, as a tuple."""

    name: str
    type: Callable[[str], Any] = str  # Any: see Option.type
    required: bool = False
    many: bool = False
    help: str = ""


VAR = Positional("VAR", variable_name, help="the variable that gets the result")


@dataclass(frozen=True)
class Parsed:
    """The values of one line. `given` names the options that were written; `help_text` is set when `--help` was."""

    magic: str
    values: Mapping[str, Any]  # Any: see Option.type
    given: frozenset[str] = frozenset()
    positionals: Mapping[str, Any] = field(default_factory=dict)  # Any: see Option.type
    rest: str = ""
    help_text: str | None = None

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def var(self) -> str | None:
        """The positional VAR, if there was one."""
        name = self.positionals.get("VAR")
        return None if name is None else str(name)


class HelpOnly(Exception):
    """Ends a magic that `help_of` called, with the text that ``--help`` shows."""


_IS_ASKING: ContextVar[bool] = ContextVar("tuttilab_is_asking", default=False)


def help_of(magic: Callable[[str], object]) -> str:
    """What the magic's ``--help`` shows, without showing it; empty when it has none."""
    token = _IS_ASKING.set(True)
    try:
        magic("--help")
    except HelpOnly as found:
        return str(found)
    except IPythonUsageError:
        return ""
    finally:
        _IS_ASKING.reset(token)
    return ""


def parse_line(
    magic_name: str,
    options: Sequence[Option],
    line: str,
    positionals: Sequence[Positional] = (VAR,),
    rest: bool = False,
) -> Parsed:
    """Read `line` into typed values, or raise UsageError.

    With `rest`, options are read from the front only and everything from the first other word on is kept untouched in
    `Parsed.rest`: what a line magic needs that takes SQL or a command.
    """
    by_name = {spelled: option for option in options for spelled in (option.name, option.short) if spelled}
    values: dict[str, Any] = {option.key: _start_value(option) for option in options}
    given: set[str] = set()
    words: list[str] = []
    tokens = _tokens(magic_name, line, to_first_word=rest)
    position = 0
    tail = ""
    while position < len(tokens):
        text, start = tokens[position]
        position += 1
        if text == "--":
            if rest:
                tail = line[start + 2 :].strip()
            else:
                words.extend(word for word, _ in tokens[position:])
            break
        if text in ("--help", "-h") and text not in by_name:
            text = help_table(magic_name, options, positionals)
            if _IS_ASKING.get():
                raise HelpOnly(text)
            return Parsed(magic_name, values, help_text=text)
        if not _looks_like_option(text):
            if rest:
                tail = line[start:].strip()
                break
            words.append(text)
            continue
        name, equals, value = text.partition("=")
        option = by_name.get(name)
        if option is None:
            raise UsageError(_unknown(magic_name, name, by_name))
        if option.is_flag:
            if equals:
                raise UsageError(f"{magic_name}: {option.name} is a switch and takes no value, got {value!r}.")
            values[option.key] = True
        else:
            if not equals:
                if position == len(tokens) or _looks_like_option(tokens[position][0]):
                    raise UsageError(f"{magic_name}: {option.spelling} needs a value.")
                value = tokens[position][0]
                position += 1
            converted = _convert(magic_name, option, value)
            if option.repeatable:
                values[option.key] = (*values[option.key], converted)
            elif option.key in given:
                raise UsageError(f"{magic_name}: {option.name} was given twice; give it once.")
            else:
                values[option.key] = converted
        given.add(option.key)
    found = _positionals(magic_name, words, positionals)
    return Parsed(magic_name, values, frozenset(given), found, tail)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a typing error most likely meant, if one is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def duration_s(text: str) -> float:
    """Seconds in "90s", "10m", "1h30m", "2d" or "250ms"; a bare number is refused because its unit is ambiguous."""
    position = 0
    total = 0.0
    for match in _DURATION_PART.finditer(text.strip()):
        if match.start() != position:
            break
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if position == 0 or position != len(text.strip()) or total <= 0:
        raise ValueError("a duration above zero such as 90s, 10m or 1h30m")
    return total


def whole_number(text: str) -> int:
    """A converter: an integer of at least zero."""
    if not text.isascii() or not text.isdigit():
        raise ValueError("a whole number")
    return int(text)


def key_value(text: str) -> tuple[str, str]:
    """A converter for `K=V`: the value may be empty and may hold more equals signs."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError("NAME=VALUE")
    return key, value


def help_table(magic_name: str, options: Sequence[Option], positionals: Sequence[Positional] = (VAR,)) -> str:
    """The `--help` text: a usage line and one row per option with its meaning and default."""
    usage = " ".join([magic_name, *(_usage_of(positional) for positional in positionals), "[options]"])
    rows = [(positional.name, positional.help) for positional in positionals]
    for option in options:
        default = "" if option.default in (None, False, ()) else f" (default {option.default})"
        rows.append((option.spelling, option.help + default))
    width = max((len(left) for left, _ in rows), default=0)
    return "\n".join([usage, *(f"  {left.ljust(width)}  {right}".rstrip() for left, right in rows)])


def option_table(options: Sequence[Option]) -> dict[str, list[str]]:
    """For completion: each option's name with the values that it can take, an empty list for any value."""
    return {option.name: list(option.choices) for option in options}


def _start_value(option: Option) -> Any:
    if option.repeatable:
        return tuple(option.default or ())
    return False if option.is_flag and option.default is None else option.default


def _looks_like_option(text: str) -> bool:
    """`-5` and a lone `-` are values; `-p` and `--limit` are options."""
    return len(text) > 1 and text[0] == "-" and not text[1].isdigit() and text[1] != "."


def _tokens(magic_name: str, line: str, to_first_word: bool) -> list[tuple[str, int]]:
    """Shell-like words with their positions. With ``to_first_word`` free text after the options may hold any quote: not parsed."""
    found: list[tuple[str, int]] = []
    position = 0
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(line, position)
        if match is None:
            if to_first_word:
                found.append((line[position:], position))
                return found
            raise UsageError(f"{magic_name}: the quote in {line[position:].strip()!r} is not closed.")
        end = match.end()
        if end < len(line) and not line[end].isspace() and not to_first_word:
            raise UsageError(f"{magic_name}: the quote in {line[end:].strip()!r} is not closed.")
        found.append((shlex.split(match[0])[0], position))
        position = end
    return found


def _unknown(magic_name: str, name: str, known: Iterable[str]) -> str:
    guess = nearest(name, [word for word in known if word.startswith("--")])
    advice = f"did you mean {guess}?" if guess else f"{magic_name} --help lists what there is."
    return f"{magic_name}: unknown option {name}; {advice}"


def _convert(magic_name: str, option: Option, value: str) -> Any:
    if option.choices and value not in option.choices:
        guess = nearest(value, option.choices)
        hint = f"; did you mean {guess}?" if guess else "."
        raise UsageError(f"{magic_name}: {option.name} is one of {', '.join(option.choices)}, got {value!r}{hint}")
    try:
        return option.type(value)
    except ValueError as error:
        raise UsageError(f"{magic_name}: {option.name} takes {error}, got {value!r}.") from error


def _positionals(magic_name: str, words: list[str], positionals: Sequence[Positional]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    left = list(words)
    for positional in positionals:
        taken = left if positional.many else left[:1]
        left = [] if positional.many else left[1:]
        if positional.required and not taken:
            raise UsageError(f"{magic_name}: {positional.name} is missing; {magic_name} --help shows the usage.")
        try:
            values = tuple(positional.type(word) for word in taken)
        except ValueError as error:
            wrong = taken[0] if len(taken) == 1 else " ".join(taken)
            raise UsageError(f"{magic_name}: {positional.name} is {error}, got {wrong!r}.") from error
        if positional.many:
            found[positional.name] = values
        elif values:
            found[positional.name] = values[0]
    if left:
        raise UsageError(f"{magic_name}: {' '.join(left)!r} was not expected; {magic_name} --help shows the usage.")
    return found


def _usage_of(positional: Positional) -> str:
    name = positional.name + ("..." if positional.many else "")
    return name if positional.required else f"[{name}]"
