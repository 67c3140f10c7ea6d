"""The base of all messages: classes whose annotations are the members of a JSON object (docs/protocol.md).

`from_json` checks each member against its annotation, and a FrameError names the member that is wrong; so code that
uses messages can rely on their types. Unknown members are ignored, since the peer may be newer, unless `strict`. The
trap: the agent imports this, so it must cost nothing at start. The class is not a dataclass, which would compile five
functions for each message; how to read a message is found out when the first one arrives. The module is long because
the codecs of members (numbers, texts, bytes, lists, objects, messages) use each other.
"""

import json
import sys
import types
from binascii import a2b_base64, b2a_base64
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar, Union, get_args, get_origin

from kubectl_gadget.errors import FrameError

if TYPE_CHECKING:
    from typing import Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[type], type]:
        """Python 3.9 and 3.10 do not have it."""
        return lambda cls: cls


NONE: Mapping[Any, Any] = MappingProxyType({})
"""The default of members that are objects with any names."""
MOST_VALUES = 1 << 19
"""In the JSON of one frame or record. They take at most 60 MB of memory and a second; a node with 70,000 cgroups sends
a quarter of that."""
_LONGEST_LINE = 4000
"""Characters of a line for people"""
_LONGEST_NAME = 512
"""Characters of a name. The longest ones that Kubernetes and runtimes accept are references of images."""
_MOST_LINES = 100
"""of a text for people. Errors of programs that the kernel refused have some twenty."""
_LEAST, _MOST = -(1 << 63), 1 << 64
_MOST_NS = 1 << 62
"""The year 2116 as wall time; such times can be added and subtracted in 64 bits."""
_UNIONS = (Union, getattr(types, "UnionType", Union))
"""Python 3.9 does not have the second: `X | Y`."""
_SHOWN = 60
"""Characters of a wrong value that an error shows."""


class WrongError(Exception):
    """A value is wrong. `path` has the steps that lead to it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.path: list[str] = []

    def below(self, step: str) -> "WrongError":
        """Adds a step at the path's beginning, and returns the error."""
        self.path.insert(0, step)
        return self

    def text(self) -> str:
        """Returns a message such as "`gadgets[0].lost` is 5, not an object"."""
        where = "".join(self.path).removeprefix(".")
        return f"`{where}` {self}" if where else f"it {self}"


class Codec(NamedTuple):
    """The reader, the writer and the name of one type."""

    read: Callable[[Any], Any]
    """raises WrongError"""
    write: Callable[[Any], Any]
    name: str


class _Member(NamedTuple):
    attribute: str
    codec: Codec
    required: bool
    default: Any


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Message:
    """A JSON object. An annotation without a value is a required member, one with a value has that as its default.

    `try_` is the member `try`, since some names are Python's own. Instances are immutable.
    """

    _plans: ClassVar[dict[bool, dict[str, _Member]]]
    WHOLE: ClassVar[bool] = False
    """to_json also writes given members that have their default"""

    def __init_subclass__(cls) -> None:
        cls._plans = {}

    def __init__(self, **members: object) -> None:
        plan = _plan(type(self), False)
        known = {member.attribute for member in plan.values()}
        if unknown := members.keys() - known:
            raise TypeError(f"{type(self).__name__} has no member {', '.join(sorted(unknown))}")
        if missing := [m.attribute for m in plan.values() if m.required and m.attribute not in members]:
            raise TypeError(f"{type(self).__name__} lacks {', '.join(missing)}")
        self.__dict__.update(members)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"

    def _values(self) -> list[object]:
        return [getattr(self, member.attribute) for member in _plan(type(self), False).values()]

    def given(self) -> frozenset[str]:
        """Returns the attributes that the sender or the constructor set; all others have their defaults."""
        return frozenset(self.__dict__)

    def replace(self, **members: object) -> "Self":
        """Returns a copy with other values."""
        return type(self)(**self.__dict__ | members)

    @classmethod
    def from_json(cls, value: object, what: str = "", *, strict: bool = False) -> "Self":
        """Reads a JSON value. Raises FrameError, which begins with `what` and names the member that is wrong. `strict`:
        unknown members are wrong, too."""
        try:
            return _read_message(cls, value, strict)
        except WrongError as wrong:
            raise FrameError(f"{what or cls.__name__}: {wrong.text()}") from None

    def to_json(self) -> dict[str, object]:
        """Returns a JSON object. Unless WHOLE, members that have their default are left out, which means the same."""
        given, whole = self.__dict__, self.WHOLE
        return {
            name: member.codec.write(given[member.attribute])
            for name, member in _plan(type(self), False).items()
            if member.attribute in given and (whole or member.required or given[member.attribute] != member.default)
        }

    def to_bytes(self) -> bytes:
        """Returns compact JSON in UTF-8."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()


M = TypeVar("M", bound=Message)


def value_count(payload: bytes) -> int:
    """Return an upper limit of the number of values and members in this JSON, in little time and no memory."""
    return 1 + sum(payload.count(mark) for mark in b",:[{")


def parse(payload: bytes, most: int = MOST_VALUES) -> dict[str, Any]:
    """Returns a payload as a JSON object. Raises FrameError when it is not one, has a member twice, is not UTF-8, or
    has more values than `most`."""
    if len(payload) > most and value_count(payload) > most:
        raise FrameError(f"more than {most:,} values")
    try:
        value = _DECODER.decode(payload.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise FrameError(f"a JSON {_kind(value)}, not an object")
    return value


def read(cls: type[M], payload: bytes, what: str, *, strict: bool = False, most: int = MOST_VALUES) -> M:
    """Returns the message in the payload of a frame, which errors name as `what`. Raises FrameError."""
    try:
        value = parse(payload, most)
    except FrameError as error:
        raise FrameError(f"{what}: {error}") from None
    return cls.from_json(value, what, strict=strict)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Counted in one pass: a peer may send millions of members.
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the member {twice[:_SHOWN]!r} appears twice in one object")
    return found


def _constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _read_message(cls: type[M], value: object, strict: bool) -> M:
    if not isinstance(value, dict):
        raise _wrong(value, "an object")
    found = object.__new__(cls)
    given = found.__dict__
    plan = _plan(cls, strict)
    for name, member in plan.items():
        if name in value:
            try:
                given[member.attribute] = member.codec.read(value[name])
            except WrongError as wrong:
                raise wrong.below(f".{name}") from None
        elif member.required:
            raise WrongError("is missing").below(f".{name}")
    if strict and len(given) != len(value):
        unknown = next(name for name in value if name not in plan)
        raise WrongError("is not a known member").below(f".{unknown[:_SHOWN]}")
    return found


def _plan(cls: type[Message], strict: bool) -> dict[str, _Member]:
    plan = cls._plans.get(strict)
    if plan is None:
        plan = cls._plans[strict] = {}
        for base in reversed(cls.__mro__):
            if issubclass(base, Message) and base is not Message:
                annotations = base.__annotations__
                if sys.version_info < (3, 10):  # noqa: UP036  where a class without any has its base's
                    annotations = base.__dict__.get("__annotations__", {})  # noqa: RUF063
                for attribute, annotation in annotations.items():
                    if not attribute.isupper():  # a ClassVar
                        required = not hasattr(cls, attribute)
                        default = None if required else getattr(cls, attribute)
                        name = attribute.removesuffix("_")
                        plan[name] = _Member(attribute, _codec(annotation, strict), required, default)
    return plan


def _codec(annotation: Any, strict: bool) -> Codec:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        codec = arguments[1]
        assert isinstance(codec, Codec)
        return codec
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return Codec(
            lambda value: _read_message(annotation, value, strict), lambda value: value.to_json(), annotation.__name__
        )
    if origin in _UNIONS:
        others = tuple(each for each in arguments if each is not type(None))
        codec = _codec(others[0], strict) if len(others) == 1 else _kinds_codec(others, strict)
        return codec if len(others) == len(arguments) else _or_null(codec)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list_codec(_codec(arguments[0], strict))
    if origin is tuple:
        return _fixed_codec([_codec(each, strict) for each in arguments])
    if origin is Mapping:
        return _mapping_codec(arguments[0], _codec(arguments[1], strict))
    raise TypeError(f"a message cannot have a member of the type {annotation!r}")


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number"}
    return names.get(type(value), "number" if isinstance(value, float) else "null")


def _wrong(value: object, expected: str) -> WrongError:
    shown = repr(value) if value is None or isinstance(value, (str, int, float)) else _kind(value)
    return WrongError(f"is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}, not {expected}")


def _same(value: object) -> object:
    return value


def _read_text(value: object) -> str:
    if type(value) is not str:
        raise _wrong(value, "a string")
    if value.isascii():
        return value
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in value)


def _read_line(value: object) -> str:
    """Reads a text for people. Whatever begins a line or controls a terminal is escaped, so that an agent's text never
    looks like a message of this program."""
    text = _read_text(value)
    text = text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _read_lines(value: object) -> str:
    """Reads a text for people that may have several lines. All but the first are indented, as no message is."""
    first, *others = _read_text(value).split("\n", _MOST_LINES)
    return "\n    ".join(map(_read_line, [first, *others]))


def _read_name(value: object) -> str:
    """Reads the name of an object, and keeps no more of it than a real name has."""
    return _read_text(value)[:_LONGEST_NAME]


def _read_time(value: object) -> int:
    """Reads a time or a duration in ns."""
    found = _read_int(value)
    if not 0 <= found < _MOST_NS:
        raise WrongError("is a time that no clock shows")
    return found


def _read_int(value: object) -> int:
    if type(value) is not int:
        raise _wrong(value, "a whole number")
    if not _LEAST <= value < _MOST:
        raise WrongError("is a number beyond 64 bits")
    return value


def _read_bool(value: object) -> bool:
    if type(value) is not bool:
        raise _wrong(value, "true or false")
    return value


_PLAIN: dict[Any, Codec] = {
    str: Codec(_read_text, _same, "string"),
    int: Codec(_read_int, _same, "number"),
    bool: Codec(_read_bool, _same, "boolean"),
    object: Codec(_same, _same, "any"),
}


def _kinds_codec(classes: tuple[type[Message], ...], strict: bool) -> Codec:
    """Returns the codec of one of several messages, chosen by its member `kind`; unknown kinds are read as the
    first."""
    by_kind = {kind: each for each in classes for kind in each.KINDS}  # type: ignore[attr-defined]

    def read(value: object) -> Message:
        kind = value.get("kind") if isinstance(value, dict) else None
        return _read_message(by_kind.get(kind, classes[0]) if isinstance(kind, str) else classes[0], value, strict)

    return Codec(read, lambda value: value.to_json(), " or ".join(each.__name__ for each in classes))


def _or_null(codec: Codec) -> Codec:
    return Codec(
        lambda value: None if value is None else codec.read(value),
        lambda value: None if value is None else codec.write(value),
        f"{codec.name} or null",
    )


def _list_codec(codec: Codec) -> Codec:
    def read(value: object) -> tuple[object, ...]:
        if not isinstance(value, (list, tuple)):
            raise _wrong(value, "a list")
        return tuple(_read_each(value, codec.read))

    write = list if codec.write is _same else lambda value: [codec.write(each) for each in value]
    return Codec(read, write, f"list of {codec.name}")


def _read_each(values: Iterable[Any], read: Callable[[Any], Any]) -> Iterable[Any]:
    for place, each in enumerate(values):
        try:
            yield read(each)
        except WrongError as wrong:
            raise wrong.below(f"[{place}]") from None


def _fixed_codec(codecs: list[Codec]) -> Codec:
    def read(value: object) -> tuple[object, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != len(codecs):
            raise _wrong(value, f"a list of {len(codecs)}")
        return tuple(codec.read(each) for codec, each in zip(codecs, value, strict=True))

    def write(value: tuple[object, ...]) -> list[object]:
        return [codec.write(each) for codec, each in zip(codecs, value, strict=True)]

    return Codec(read, write, f"[{', '.join(codec.name for codec in codecs)}]")


def _mapping_codec(key_type: Any, codec: Codec) -> Codec:
    key = _KEYS[get_args(key_type)[1] if get_origin(key_type) is Annotated else key_type]

    def read(value: object) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise _wrong(value, "an object")
        found = {}
        for name, each in value.items():
            try:
                found[key.read(name)] = codec.read(each)
            except WrongError as wrong:
                raise wrong.below(f".{name[:_SHOWN]}") from None
        return found

    def write(value: Mapping[object, object]) -> dict[str, object]:
        return {key.write(name): codec.write(each) for name, each in value.items()}

    return Codec(read, write, f"object of {key.name} → {codec.name}")


def _read_number_key(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise WrongError("has a key that is not a number")
    return _read_int(int(text))


def _read_hex(value: object) -> bytes:
    try:
        return bytes.fromhex(_read_text(value))
    except ValueError:
        raise _wrong(value, "bytes in hexadecimal digits") from None


def _read_base64(value: object) -> bytes:
    try:
        text = _read_text(value)
        if sys.version_info < (3, 11):  # noqa: UP036
            from base64 import b64decode

            return b64decode(text, validate=True)
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        raise _wrong(value, "bytes in base64") from None


def _read_path(value: object) -> str:
    """Reads a file's path. Bytes that are not UTF-8 are decoded as by os.fsdecode(); a NUL is not allowed."""
    if type(value) is not str:
        raise _wrong(value, "a path")
    try:
        data = value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise _wrong(value, "a path") from None
    if b"\0" in data:
        raise _wrong(value, "a path")
    return value


def _read_bits(value: object) -> int:
    """Reads a set of any size, from the hexadecimal digits of a number."""
    text = _read_text(value)
    if not text or text.strip("0123456789abcdef"):
        raise _wrong(value, "hexadecimal digits")
    return int(text, 16)


def _read_value(value: object) -> int | str | bytes:
    """Reads the value of a variable of a BPF object."""
    if isinstance(value, dict) and set(value) == {"hex"}:
        return _read_hex(value["hex"])
    if type(value) is str and _read_text(value) == value:
        return value
    if type(value) is bool:
        return value
    if type(value) is int:
        return _read_int(value)
    raise _wrong(value, 'a whole number, true, false, a string or {"hex": …}')


HEX = Codec(_read_hex, bytes.hex, "hex")
BASE64 = Codec(_read_base64, lambda value: b2a_base64(value, newline=False).decode(), "base64")
VALUE = Codec(_read_value, lambda value: {"hex": value.hex()} if isinstance(value, bytes) else value, "value")
STEP = Codec(lambda value: _read_int(value) if type(value) is int else _read_text(value), _same, "string or number")
PATH = Codec(_read_path, _same, "path")
BITS = Codec(_read_bits, "{:x}".format, "hex")
LINE = Codec(_read_line, _same, "string")
LINES = Codec(_read_lines, _same, "string")
NAME = Codec(_read_name, _same, "string")
TIME = Codec(_read_time, _same, "number")
Hex = Annotated[bytes, HEX]
Base64 = Annotated[bytes, BASE64]
PathStep = Annotated[str | int, STEP]
FilePath = Annotated[str, PATH]
Bits = Annotated[int, BITS]
Line = Annotated[str, LINE]
Lines = Annotated[str, LINES]
Name = Annotated[str, NAME]
Time = Annotated[int, TIME]
Value = Annotated[int | str | bytes, VALUE]
"""The value of a variable: a number, a boolean, a text, or bytes as `{"hex":"0a0b…"}`."""

_KEYS: dict[Any, Codec] = {
    str: Codec(_read_text, _same, "string"),
    int: Codec(_read_number_key, str, "number"),
    HEX: HEX,
    LINE: LINE,
}
