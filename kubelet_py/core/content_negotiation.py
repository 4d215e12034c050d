"""Which form an answer takes: a request's Accept header against the forms that a server has.

Owns the header's syntax, its order of preference, and the parameters by which a client asks for one kind of object
(`application/json;as=Statusz;g=config.k8s.io;v=v1beta1`). Pure.

Upstream counterpart: apiserver's pkg/endpoints/handlers/negotiation and github.com/munnerz/goautoneg. Deliberate
difference: what a client prefers more comes first and then what is said more exactly, as HTTP has it; upstream's order
depends on how a wildcard was placed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

JSON: Final = "application/json"
YAML: Final = "application/yaml"
CBOR: Final = "application/cbor"
TEXT: Final = "text/plain"
_STREAMED: Final = (JSON, CBOR)
"""Forms that have a variant for watches."""


@dataclass(frozen=True, slots=True)
class Target:
    """The kind of object that a client asks for."""

    group: str
    version: str
    kind: str


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of an Accept header."""

    main: str
    sub: str
    quality: float = 1.0
    parameters: Mapping[str, str] = field(default_factory=dict)

    def matches(self, form: str) -> bool:
        """Whether it means this form, `*` being any."""
        main, _, sub = form.partition("/")
        return (self.main, self.sub) in ((main, sub), (main, "*"), ("*", "*"))

    @property
    def target(self) -> Target | None:
        """The object that is asked for; None when the clause names none."""
        if not {"as", "g", "v"} & self.parameters.keys():
            return None
        return Target(*(self.parameters.get(name, "") for name in ("g", "v", "as")))


@dataclass(frozen=True, slots=True)
class Choice:
    """The form of an answer, the object in it (None for text and for errors), and whether a person will read it."""

    form: str
    target: Target | None
    pretty: bool


def parse_accept(header: str) -> list[Clause]:
    """The clauses of an Accept header, the most wanted first; what cannot be read is passed over."""
    clauses = [clause for part in header.split(",") if (clause := _clause(part)) is not None]
    return sorted(clauses, key=lambda clause: (-clause.quality, clause.main == "*", clause.sub == "*"))


def choose(header: str, forms: Sequence[str], kinds: Sequence[Target]) -> Choice | None:
    """The form of an answer that is one of these kinds, or text for those who name none; None when nothing fits."""
    for clause in parse_accept(header):
        if clause.parameters.get("sv") or clause.parameters.get("stream"):
            continue
        for form in filter(clause.matches, forms):
            target = clause.target
            if target is None if form == TEXT else target in kinds:
                return Choice(form, target, _pretty(clause))
    return None


def choose_for_error(header: str, forms: Sequence[str]) -> Choice | None:
    """The form of an error: any that the client takes, whatever object it asked for; None for JSON to be read."""
    for clause in parse_accept(header):
        if clause.parameters.get("sv") or clause.target is not None:
            continue
        stream = clause.parameters.get("stream", "")
        for form in filter(clause.matches, forms):
            if not stream or (stream == "watch" and form in _STREAMED):
                return Choice(form, None, _pretty(clause))
    return None


def read_by_a_person(query: Mapping[str, str], user_agent: str) -> bool:
    """Whether an answer should have line breaks: `?pretty=` decides, or else who asks."""
    if wanted := query.get("pretty"):
        return wanted in ("1", "t", "T", "TRUE", "true", "True")
    return user_agent.startswith(("curl", "Wget", "Mozilla/5.0"))


def _pretty(clause: Clause) -> bool:
    return clause.parameters.get("pretty") == "1"


def _clause(part: str) -> Clause | None:
    media, *words = part.split(";")
    main, slash, sub = (text.strip() for text in media.partition("/"))
    if main == "*" and not slash:
        sub = "*"
    if not sub or "/" in sub:
        return None
    parameters = dict(_parameters(words))
    return Clause(main, sub, _quality(parameters.pop("q", "1")), parameters)


def _parameters(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, equals, value = (text.strip() for text in word.partition("="))
        if equals and value and "=" not in value:
            yield name, value


def _quality(text: str) -> float:
    """A number; 0 for what is none, which makes it the last choice."""
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
