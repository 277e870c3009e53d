"""Conversion of published files: prefixes of wrappers, pickled numpy numbers, unnamed running averages."""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

WRAPPERS = ('module', '_orig_mod')
"""Parts of a weight's name that DistributedDataParallel and torch.compile insert."""
VLM_PART = re.compile(r'(?:^|\.)((?:language_model|visual)\..*)')
"""Pattern of the VLM's own part of a name, after the attributes that contained the VLM (``vlm._qwen.model.``)."""
LANGUAGE_HEAD = re.compile(r'(?:^|\.)lm_head\.')
_NUMBER = re.compile(r'[<>|=]?(?:[biufc]\d+|[US]\d+)')


def expert_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Remove wrapper prefixes from the names of the expert's weights.

    Raises:
        ValueError: two weights would have the same name.
    """
    return _renamed(weights, _unwrapped)


def vlm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shorten the names of the VLM's weights to the part from ``language_model.`` or ``visual.`` on; keep others.

    Raises:
        ValueError: two weights would have the same name.
    """
    return _renamed(weights, _vlm_name)


def averaged_weights(ema: Any, weights: Mapping[str, Tensor],
                     vlm_weights: Mapping[str, Tensor] | None) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Replace the expert's weights, and the VLM's if they are averaged too, by the running average.

    Args:
        ema: the file's ``ema``: ``shadow_params``, one tensor per trained parameter, the VLM's before the
            expert's, each in the order of the weights; or the expert's averages by name.
        weights: state dict of the expert.
        vlm_weights: state dict of a tuned VLM, else None.

    Returns:
        The averaged weights of the expert, and of the VLM or None.

    Raises:
        ValueError: the average does not fit the weights.
    """
    if isinstance(ema, Mapping) and 'shadow_params' not in ema:
        named = expert_names(ema)
        if set(named) != set(weights) or _shapes(named.values()) != _shapes(weights[name] for name in named):
            raise ValueError(f"'ema' holds {_shortened(sorted(map(str, ema)))}; expected shadow_params, or averages of "
                             "'weights' by name")
        return named, None if vlm_weights is None else dict(vlm_weights)
    shadow = list(ema['shadow_params']) if isinstance(ema, Mapping) else []
    tuned = vlm_weights or {}
    # A language head that shares its tensor with the embeddings is in the state dict, but is not a parameter.
    for leading in ([], [name for name in tuned if not LANGUAGE_HEAD.search(name)], list(tuned)):
        expected = [*(tuned[name] for name in leading), *weights.values()]
        if _shapes(shadow) == _shapes(expected):
            return (dict(zip(weights, shadow[len(leading):], strict=True)),
                    {**tuned, **dict(zip(leading, shadow, strict=False))} if vlm_weights is not None else None)
    raise ValueError(f"'ema' holds {len(shadow)} shadow_params; expected one of the same shape for each of the "
                     f"{len(weights)} 'weights', behind those for {len(tuned)} 'vlm_weights' or without them")


def numpy_numbers() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the safe globals with which torch.load reads pickled numpy numbers and strings.

    Numpy's unpickling is not used: a type is stored as its code, and a number is built from its bytes.
    """
    # numpy 1 pickles under the first of the two names, numpy 2 under the second.
    return [(_NumpyType, 'numpy.dtype'), (_number, 'numpy.core.multiarray.scalar'),
            (_number, 'numpy._core.multiarray.scalar')]


class _NumpyType:
    """Substitute of ``numpy.dtype`` during unpickling."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError(f'Unsupported type of numpy: {code!r}')
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, ...); the rest describes structured types, which are not supported.
        if state[1] in ('<', '>'):
            self.code = state[1] + self.code.lstrip('<>|=')


def _number(kind: _NumpyType, content: bytes) -> Any:
    dtype = np.dtype(kind.code)
    if len(content) != dtype.itemsize:
        raise pickle.UnpicklingError(f'a number of {dtype.itemsize} bytes has {len(content)}')
    return np.frombuffer(content, dtype)[0].item()


def _renamed(weights: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    origin: dict[str, str] = {}
    for key in weights:
        name = rename(key)
        if name in origin:
            raise ValueError(f'{origin[name]!r} and {key!r} are both {name!r} without wrapper prefixes; '
                             'save the model without duplicates')
        origin[name] = key
    return {name: weights[key] for name, key in origin.items()}


def _unwrapped(key: str) -> str:
    return '.'.join(part for part in key.split('.') if part not in WRAPPERS)


def _vlm_name(key: str) -> str:
    name = _unwrapped(key)
    found = VLM_PART.search(name)
    return found.group(1) if found else name


def _shapes(tensors: Iterable[Any]) -> list[tuple[int, ...] | None]:
    return [tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else None for tensor in tensors]


def _shortened(names: Sequence[str]) -> str:
    return ', '.join(names[:4]) + (', ...' if len(names) > 4 else '')
