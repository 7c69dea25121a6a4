"""The codecs, by the words that users say: `bf16`, `topk:0.01`, `powersgd:2`."""

from collections.abc import Callable
from typing import Any

from ps_vae.errors import UsageError
from ps_vae.ps.codecs.bf16 import bf16
from ps_vae.ps.codecs.codec import BlockCodec, Codec, Matrix
from ps_vae.ps.codecs.factors import Products, factors
from ps_vae.ps.codecs.fp16 import fp16
from ps_vae.ps.codecs.int8 import int8
from ps_vae.ps.codecs.onebit import onebit
from ps_vae.ps.codecs.powersgd import powersgd
from ps_vae.ps.codecs.topk import topk
from ps_vae.ps.record import record

__all__ = ["CODECS", "FACTORS", "NO_CODEC", "Entry", "codec_for", "push_codec_for"]

NO_CODEC = "none"
FACTORS = "factors"


@record
class Entry:
    """A row of the table.

    make        make(words, *parameters, numbers, matrices) -> Codec
    parameters  of each its name, its type and what is taken where the user says nothing; no default: it has to be said
    says        what it is, for the help
    of_pushes   made for pushes alone: make takes `products` too and returns a BlockCodec
    """

    make: Callable[..., Any]
    parameters: tuple[tuple[str, Callable[[str], Any], Any], ...]
    says: str
    of_pushes: bool = False


CODECS = {
    "fp16": Entry(fp16, (), "half the bytes, IEEE half precision"),
    "bf16": Entry(bf16, (), "half the bytes, the upper half of each float32"),
    "int8": Entry(int8, (), "a quarter of the bytes, rounded at random so that the mean is right"),
    "onebit": Entry(onebit, (), "a thirtieth: signs and a scale a block, with error feedback"),
    "topk": Entry(
        topk,
        (("ratio", float, None), ("momentum", float, 0.0)),
        "the largest numbers alone, a ratio of them, with error feedback; momentum: the workers', not the server's",
    ),
    "powersgd": Entry(powersgd, (("rank", int, None),), "each matrix at a low rank, with error feedback"),
    FACTORS: Entry(
        factors,
        (),
        "the same bits: activations and output gradients in place of their product, where they are smaller",
        of_pushes=True,
    ),
}


def codec_for(words: str) -> Callable[[int, tuple[Matrix, ...]], Codec] | None:
    """What makes the codec that the user means for so many numbers, among them these matrices; None for `none`.

    Raises UsageError where there is no such codec, or only for pushes.
    """
    if words == NO_CODEC:
        return None
    entry, values = _parsed(words)
    if entry.of_pushes:
        raise UsageError("it is for pushes alone")
    # What the numbers may be the codec says itself, whatever it is made for.
    entry.make(words, *values, numbers=0, matrices=())
    return lambda numbers, matrices: entry.make(words, *values, numbers=numbers, matrices=matrices)


def push_codec_for(words: str) -> Callable[[int, tuple[Matrix, ...], Products], BlockCodec] | None:
    """What makes the codecs of pushes: as `codec_for`, for gradients that come about by such products."""
    if words == NO_CODEC:
        return None
    entry, values = _parsed(words)
    if entry.of_pushes:
        return lambda numbers, matrices, products: entry.make(
            words, *values, numbers=numbers, matrices=matrices, products=products
        )
    make = codec_for(words)
    return None if make is None else lambda numbers, matrices, products: _for_every_block(make(numbers, matrices))


def _parsed(words: str) -> tuple[Entry, list[Any]]:
    """The row of the table, and its parameters' values."""
    name, *said = words.split(":")
    entry = CODECS.get(name)
    if entry is None:
        raise UsageError(f"there is no such codec; there are {', '.join([NO_CODEC, *map(_pattern, CODECS)])}")
    if len(said) > len(entry.parameters):
        raise UsageError(f"too many parts; write {_pattern(name)}")
    values = [default for _, _, default in entry.parameters]
    for place, (text, (parameter, parse, _)) in enumerate(zip(said, entry.parameters, strict=False)):
        try:
            values[place] = parse(text)
        except ValueError:
            raise UsageError(f"{text!r} is no {parameter}; write {_pattern(name)}") from None
    if any(value is None for value in values):
        raise UsageError(f"a number is missing; write {_pattern(name)}")
    return entry, values


def _for_every_block(codec: Codec) -> BlockCodec:
    return lambda microbatches: codec


def _pattern(name: str) -> str:
    return ":".join([name, *(parameter.upper() for parameter, _, _ in CODECS[name].parameters)])
