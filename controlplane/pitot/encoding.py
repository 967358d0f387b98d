"""A predictor as bytes, and back: a version, a header of names and shapes, arrays, a checksum.

    PITOT | version, 2 bytes | length of the header, 4 bytes | header, JSON | arrays | 32 bytes

All numbers are little-endian. The checksum (BLAKE2b) is of all before it. What cannot be read is
refused with one sentence, and whoever reads keeps what it had (``adopting.loaded``).
"""

import json
import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controlplane.pitot.calibration import Calibration, Pool
from controlplane.pitot.network import Embeddings
from controlplane.pitot.predictor import Predictor

VERSION = 1
MAGIC = b"PITOT"
_FRONT = struct.Struct("<HI")
_CHECKSUM_BYTES = 32
_TABLES = (
    "workload",
    "workload_scale",
    "platform",
    "platform_scale",
    "susceptible",
    "magnitude",
)
_HELP = "learn again, or restore an earlier copy"

Array = NDArray[np.float32] | NDArray[np.float64]


class CorruptParametersError(ValueError):
    """Bytes that are no predictor: what was wanted, what came, and what would help."""


def encode(predictor: Predictor) -> bytes:
    """The same predictor always gives the same bytes."""
    arrays: dict[str, Array] = {name: getattr(predictor.at, name) for name in _TABLES}
    for degree, pool in sorted(predictor.calibration.pools.items()):
        arrays[f"residuals {degree}"] = pool.residuals
        arrays[f"weights {degree}"] = pool.weights
    kept = {name: _plain(values) for name, values in arrays.items()}
    calibration = predictor.calibration
    header = {
        "workloads": predictor.workloads,
        "platforms": predictor.platforms,
        "quantiles": calibration.quantiles,
        "upper_heads": _rows(calibration.upper_heads),
        "lower_heads": _rows(calibration.lower_heads),
        "arrays": [[name, values.dtype.str, values.shape] for name, values in kept.items()],
    }
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    front = MAGIC + _FRONT.pack(VERSION, len(text)) + text
    whole = front + b"".join(values.tobytes() for values in kept.values())
    return whole + blake2b(whole, digest_size=_CHECKSUM_BYTES).digest()


def decode(data: bytes) -> Predictor:
    """What :func:`encode` wrote.

    Raises:
        CorruptParametersError: It was not written so, by this version, or not to its end.
    """
    begin = len(MAGIC) + _FRONT.size
    if len(data) < begin + _CHECKSUM_BYTES or not data.startswith(MAGIC):
        raise CorruptParametersError(
            f"wanted parameters of a predictor, which begin with {MAGIC.decode()}, found "
            f"{len(data)} bytes that begin with {data[: len(MAGIC)]!r}; {_HELP}"
        )
    version, length = _FRONT.unpack_from(data, len(MAGIC))
    if version != VERSION:
        raise CorruptParametersError(
            f"wanted parameters of version {VERSION}, found version {version}; read them with the "
            "release that wrote them, or learn again"
        )
    whole, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    found = blake2b(whole, digest_size=_CHECKSUM_BYTES).digest()
    if found != checksum:
        raise CorruptParametersError(
            f"wanted {len(data)} bytes of parameters whose checksum is {checksum.hex()[:12]}, "
            f"found {found.hex()[:12]}: they were cut off or changed; {_HELP}"
        )
    try:
        header = json.loads(whole[begin : begin + length])
        return _built(header, _arrays(header["arrays"], whole[begin + length :]))
    except (KeyError, TypeError, IndexError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptParametersError(
            f"wanted a header of names and shapes, found one that cannot be read ({error!r}); "
            f"{_HELP}"
        ) from error


def _arrays(told: list[Any], body: bytes) -> dict[str, Array]:
    found: dict[str, Array] = {}
    place = 0
    for name, kind, shape in told:
        if kind not in ("<f4", "<f8") or any(size < 0 for size in shape):
            raise CorruptParametersError(
                f"wanted {name} of 4 or 8 byte reals and a shape, found {kind} {shape}; {_HELP}"
            )
        end = place + int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        if end > len(body):
            raise CorruptParametersError(
                f"wanted {end} bytes of arrays up to {name}, found {len(body)}; {_HELP}"
            )
        values = np.frombuffer(body[place:end], dtype=kind).reshape(shape)
        if not np.isfinite(values).all():
            raise CorruptParametersError(
                f"wanted finite numbers in {name}, found "
                f"{np.count_nonzero(~np.isfinite(values))} that are not; {_HELP}"
            )
        found[name], place = values.astype(values.dtype.newbyteorder("=")), end
    if place != len(body):
        raise CorruptParametersError(f"wanted {place} bytes of arrays, found {len(body)}; {_HELP}")
    return found


def _built(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Predictor:
    at = Embeddings(**{name: arrays[name].astype(np.float32) for name in _TABLES})
    workloads, platforms = tuple(header["workloads"]), tuple(header["platforms"])
    quantiles = tuple(float(value) for value in header["quantiles"])
    rank, parts = at.platform.shape[-1], at.magnitude.shape[-2]
    wanted = {
        "workload": (len(workloads), len(quantiles), rank),
        "workload_scale": (len(workloads),),
        "platform": (len(platforms), rank),
        "platform_scale": (len(platforms),),
        "susceptible": (len(platforms), parts, rank),
        "magnitude": (len(platforms), parts, rank),
    }
    pools = {}
    for name in arrays:
        kind, _, degree = name.partition(" ")
        if kind == "residuals":
            rows = len(arrays[name])
            wanted |= {name: (rows, len(quantiles)), f"weights {degree}": (rows,)}
            pools[int(degree)] = Pool(
                int(degree), _reals(arrays[name]), _reals(arrays[f"weights {degree}"])
            )
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise CorruptParametersError(
                f"wanted {name} of shape {shape}, found {arrays[name].shape}; {_HELP}"
            )
    upper, lower = _heads(header["upper_heads"]), _heads(header["lower_heads"])
    for head in (*upper.values(), *lower.values()):
        if not 0 <= head < len(quantiles):
            raise CorruptParametersError(
                f"wanted heads 0 to {len(quantiles) - 1}, found {head}; {_HELP}"
            )
    return Predictor(workloads, platforms, at, Calibration(quantiles, pools, upper, lower))


def _plain(values: Array) -> Array:
    """In order, and little-endian."""
    kind = "<f4" if values.dtype == np.float32 else "<f8"
    return np.ascontiguousarray(values, dtype=kind)


def _reals(values: Array) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _rows(heads: Mapping[tuple[int, float], int]) -> list[list[float]]:
    return [[degree, miss, head] for (degree, miss), head in sorted(heads.items())]


def _heads(rows: list[list[float]]) -> dict[tuple[int, float], int]:
    return {(int(degree), float(miss)): int(head) for degree, miss, head in rows}
