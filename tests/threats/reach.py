"""Everything that can be reached from an object, as bytes and as text."""

import threading
import types
from pathlib import PurePath

import numpy as np
import torch

SKIPPED = (type, types.ModuleType, types.BuiltinFunctionType, threading.Thread, int, float, complex, bool, type(None))


def reachable(root):
    """Return (places, texts): the memory of every array, tensor and bytes object by its path, and every string.

    Attributes, items, closures and bound objects are followed; of a slice the whole array behind it counts.
    """
    seen, blobs, texts, kept = set(), {}, {}, []
    todo = [("view", root)]
    while todo:
        path, found = todo.pop()
        if id(found) in seen or isinstance(found, SKIPPED):
            continue
        seen.add(id(found))
        kept.append(found)  # an id is only unique while its object lives
        if isinstance(found, bytes | bytearray | memoryview):
            blobs[path] = bytes(found)
        elif isinstance(found, str | PurePath):
            texts[path] = str(found)
        elif isinstance(found, torch.Tensor):
            blobs[path] = memory_of(found)
            todo += [(f"{path}.grad", found.grad)] if found.is_leaf else []
        elif isinstance(found, np.ndarray):
            base = found
            while isinstance(base.base, np.ndarray):
                base = base.base
            blobs[path] = base.tobytes()
        todo += parts(path, found)
    return blobs, texts


def memory_of(tensor):
    whole = torch.empty(0, dtype=torch.uint8).set_(tensor.detach().untyped_storage())
    return whole.numpy().tobytes()


def parts(path, found):
    if isinstance(found, types.FunctionType):
        cells = [c.cell_contents for c in found.__closure__ or () if c != types.CellType()]
        return [(f"{path}<closure>", value) for value in (*cells, *(found.__defaults__ or ()))]
    if isinstance(found, types.MethodType):
        return [(f"{path}.__self__", found.__self__), (f"{path}.__func__", found.__func__)]
    rows = []
    if isinstance(found, dict | types.MappingProxyType):
        rows += [(f"{path}[{key!r:.40}]", value) for key, value in found.items()]
        rows += [(f"{path}.keys", key) for key in found]
    elif isinstance(found, list | tuple | set | frozenset):
        rows += [(f"{path}[{i}]", value) for i, value in enumerate(found)]
    rows += [(f"{path}.{name}", value) for name, value in getattr(found, "__dict__", {}).items()]
    for cls in type(found).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(found, name):
                rows.append((f"{path}.{name}", getattr(found, name)))
    return rows


def places_of(secret, blobs):
    """Return where the bytes ``secret`` can be read."""
    return [path for path, blob in blobs.items() if secret in blob]
