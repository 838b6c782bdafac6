"""A model of full size on a pretended GPU, without its numbers: weights, sounds and pictures are shape and type alone.

Whole numbers and truth values are computed, since the code reads them: lengths, masks, places of media. torch's own
FakeTensor knows none of them, and without CUDA it cannot index a tensor on a device of that name."""

import weakref
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from pretended import Checked, Places, Said, autocast_on_cpu, tensors_in
from torch.utils._pytree import tree_map_only

CUDA = torch.device('cuda:0')
META = torch.device('meta')


class Sizes:
    "Bytes of all storages made: now, and at the peak."

    def __init__(self):
        self.now = self.peak = 0
        self.alive = set()

    def add(self, tensor):
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self.alive:
            return
        self.alive.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, key, storage.nbytes())

    def free(self, key, count):
        self.alive.discard(key)
        self.now -= count


class HollowPlaces(Places):
    "All that has no numbers lies on the GPU."

    def of(self, tensor):
        return CUDA if tensor.device == META else super().of(tensor)


def emptied(tensor):
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


class Hollow(Checked):
    "Runs an operation on shapes alone where one of its tensors has no numbers, or comes to a GPU as fractions."

    def __init__(self, places, frames):
        super().__init__(places, frames)
        self.sizes = Sizes()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = tensors_in((args, kwargs or {}))
        if any(x.device == META for x in given):
            self._common(func, args, given)
            args, kwargs = self._on_meta(func, args, kwargs or {})
            out = func(*args, **kwargs)
        else:
            out = super().__torch_dispatch__(func, types, args, kwargs)
        tree_map_only(torch.Tensor, self.sizes.add, out)
        return out

    def _on_meta(self, func, args, kwargs):
        if func._schema.name.startswith('aten::index') and isinstance(args[1], (list, tuple)):
            args = (args[0], self._places_of_true(args[1]), *args[2:])
        kwargs = {name: META if name == 'device' and x is not None else x for name, x in kwargs.items()}
        return tree_map_only(torch.Tensor, lambda x: x if x.device == META else emptied(x), (args, kwargs))

    def _places_of_true(self, indices):
        "A mask is counted while it has its values."
        found = []
        for index in indices:
            is_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
            found += list(index.nonzero().unbind(1)) if is_mask else [index]
        return found


class SaidHollow(Said):
    def _moved(self, tensor, device, dtype, copy=False):
        "Fractions that come to the GPU leave their numbers behind."
        if tensor.device == META:
            return torch.Tensor.to(tensor, dtype=dtype or tensor.dtype)
        out = super()._moved(tensor, device, dtype, copy)
        is_table = out.is_floating_point() and out.dim() > 1  # Sounds and patches; seconds of a video are read
        return emptied(out) if is_table and self.places.of(out) == CUDA else out


@contextmanager
def hollow():
    "Within the block a model on the meta device is on a GPU."
    places = HollowPlaces('cuda:0')
    frames = []
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.autocast, '__init__', autocast_on_cpu(torch.autocast.__init__)))
        mode = stack.enter_context(Hollow(places, frames))
        stack.enter_context(SaidHollow(places, frames))
        yield mode
