"""Tensors that say they lie on a GPU and are computed on the CPU: what CUDA refuses to mix, this refuses to mix.

`with pretended('cuda:0'):` needs no GPU. Every storage has a device of its own, which `tensor.device` tells;
`to`, `cuda`, `cpu` and `device=` move between them, and an operation on two of them raises `WrongDevice`.
"""

import os
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

CPU = torch.device('cpu')
MOVES = ('copy_', '_to_copy', 'set_')  # Take tensors of two devices
INDEXED = ('index', 'index_put', 'index_put_', '_index_put_impl_')  # Their indices may lie on the CPU
STRICT = (
    'embedding',
    'gather',
    'index_select',
    'scatter',
    'scatter_add',
    'cat',
    'stack',
)  # Take no lone number of the CPU
COUNTED = (torch.arange, torch.full, torch.linspace, torch.range)  # Read a lone number of any device; made on the CPU
FORBIDDEN_BFLOAT16 = '_amp_foreach_non_finite_check_and_unscale_'  # CUDA has no kernel: pytorch/pytorch#127176


class WrongDevice(RuntimeError):
    pass


def named(device, current):
    "A device with its number."
    device = torch.device('cuda', device) if isinstance(device, int) else torch.device(device)
    if device.type == 'cuda' and device.index is None:
        return current
    return CPU if device.type == 'cpu' else device


class Places:
    "The pretended device of each storage that is not on the CPU."

    def __init__(self, current):
        self.current = named(current, torch.device('cuda:0'))
        self.known = {}
        self.most = 4096

    def of(self, tensor):
        actual = tensor.device
        if actual.type != 'cpu' or tensor.layout != torch.strided:
            return actual
        weak, device = self.known.get(tensor.untyped_storage()._cdata, (None, CPU))
        return device

    def put(self, tensor, device):
        "A weak reference keeps the number of a storage from being used again."
        if tensor.layout != torch.strided or tensor.device.type != 'cpu':
            return
        storage = tensor.untyped_storage()
        self.known[storage._cdata] = (StorageWeakRef(storage), device)
        if len(self.known) > self.most:
            self.known = {key: kept for key, kept in self.known.items() if not kept[0].expired()}
            self.most = max(4096, 2 * len(self.known))


def tensors_in(values):
    flat, _ = tree_flatten(values)
    return [x for x in flat if isinstance(x, torch.Tensor)]


class Checked(TorchDispatchMode):
    "Looks at every operation, those of the backward pass too."

    def __init__(self, places, frames):
        super().__init__()
        self.places = places
        self.frames = frames
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        device = self._common(func, args, given)
        held = {x.untyped_storage()._cdata for x in given if x.layout == torch.strided}
        out = func(*args, **kwargs)
        for made in tensors_in(out):
            if made.layout == torch.strided and made.untyped_storage()._cdata not in held:
                self.places.put(made, device)
        self.seen += 1
        return out

    def _common(self, func, args, given):
        "The device of an operation; WrongDevice where CUDA would have none."
        name = func._schema.name.split('::')[1]
        if not given:
            return self.frames[-1] if self.frames else CPU
        if name in MOVES:
            return self.places.of(given[0])
        if name in INDEXED:
            given = self._without_indices(args, given)
        whole = [x for x in given if x.dim() or name in STRICT]
        devices = {self.places.of(x) for x in whole or given}
        lone = {self.places.of(x) for x in given if not x.dim()} - {CPU}
        if len(devices | lone) > 1 and not (len(lone) == 1 and not whole):
            shapes = ', '.join(f'{tuple(x.shape)} on {self.places.of(x)}' for x in given)
            raise WrongDevice(f'{name}: expected all tensors on the same device, found {shapes}')
        found = (devices | lone) - {CPU} or {CPU}
        (device,) = found
        self._check_type(name, device, given)
        return device

    def _without_indices(self, args, given):
        indices = [x for x in args[1] if x is not None]
        on_cpu = [x for x in indices if self.places.of(x) == CPU]
        return [x for x in given if not any(x is index for index in on_cpu)]

    def _check_type(self, name, device, given):
        if name == FORBIDDEN_BFLOAT16 and device != CPU and any(x.dtype == torch.bfloat16 for x in given):
            raise NotImplementedError(f'"{name}_cuda" not implemented for \'BFloat16\'')


class Said(TorchFunctionMode):
    "Answers and takes devices where Python asks or names them."

    def __init__(self, places, frames):
        super().__init__()
        self.places = places
        self.frames = frames

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        special = SPECIAL.get(func)
        if special is not None:
            return special(self, func, *args, **kwargs)
        device = kwargs.get('device')
        if device is not None:
            device = named(device, self.places.current)
        if device is None or device.type == 'meta':
            here = CPU if func in COUNTED else self._common(args, kwargs)
            return self._within(here, func, args, kwargs)
        out = self._within(device, func, args, kwargs | dict(device=CPU))
        for made in tensors_in(out):
            self.places.put(made, device)
        return out

    def _common(self, args, kwargs):
        given = tensors_in((args, kwargs))
        devices = [self.places.of(x) for x in given]
        return next((device for device in devices if device != CPU), CPU)

    def _within(self, device, func, args, kwargs):
        self.frames.append(device)
        try:
            return func(*args, **kwargs)
        finally:
            self.frames.pop()

    def device(self, func, tensor):
        return self.places.of(tensor)

    def is_cuda(self, func, tensor):
        return self.places.of(tensor).type == 'cuda'

    def is_cpu(self, func, tensor):
        return self.places.of(tensor).type == 'cpu'

    def get_device(self, func, tensor):
        device = self.places.of(tensor)
        return -1 if device == CPU else device.index

    def to(self, func, tensor, *args, **kwargs):
        other = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)), None)
        if other is not None:
            return self._moved(tensor, self.places.of(other), other.dtype)
        copy = kwargs.pop('copy', False)
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        return self._moved(tensor, device, dtype, copy)

    def cuda(self, func, tensor, device='cuda', *args, **kwargs):
        return self._moved(tensor, device, None)

    def cpu(self, func, tensor, *args, **kwargs):
        return self._moved(tensor, CPU, None)

    def _moved(self, tensor, device, dtype, copy=False):
        here = self.places.of(tensor)
        there = here if device is None else named(device, self.places.current)
        if there.type == 'meta' or tensor.device.type == 'meta':
            return tensor.to(there, dtype)
        with torch._C.DisableTorchFunctionSubclass():  # A subclass may have a `to` of its own
            out = torch.Tensor.to(tensor, dtype=dtype or tensor.dtype, copy=copy or there != here)
        if out is not tensor:
            self.places.put(out, there)
        return out

    def numpy(self, func, tensor, *args, **kwargs):
        device = self.places.of(tensor)
        if device.type == 'cuda':
            raise TypeError(f"can't convert {device} device type tensor to numpy. Use Tensor.cpu() first")
        return func(tensor, *args, **kwargs)

    def backward(self, func, tensor, gradient=None, retain_graph=None, create_graph=False, inputs=None):
        "The backward pass with the mode on, for what a checkpointed layer computes again."
        self.frames.append(self.places.of(tensor))
        try:
            with self:
                torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)
        finally:
            self.frames.pop()

    def set_grad(self, func, tensor, gradient):
        if gradient is not None and self.places.of(gradient) != self.places.of(tensor):
            raise WrongDevice('assigned grad has data located on a different device')
        func(tensor, gradient)


SPECIAL = {
    torch.Tensor.device.__get__: Said.device,
    torch.Tensor.is_cuda.__get__: Said.is_cuda,
    torch.Tensor.is_cpu.__get__: Said.is_cpu,
    torch.Tensor.get_device: Said.get_device,
    torch.Tensor.to: Said.to,
    torch.Tensor.cuda: Said.cuda,
    torch.Tensor.cpu: Said.cpu,
    torch.Tensor.numpy: Said.numpy,
    torch.Tensor.__array__: Said.numpy,
    torch.Tensor.backward: Said.backward,
    torch.Tensor.grad.__set__: Said.set_grad,
}


def on_cpu_in_truth(kind):
    "A class of torch whose first argument is a kind of device, made for the CPU where CUDA is named."
    made = kind.__init__

    def init(self, device='cuda', *args, **kwargs):
        kwargs = {name: 'cpu' if name == 'device_type' else x for name, x in kwargs.items()}
        made(self, 'cpu' if str(device).startswith('cuda') else device, *args, **kwargs)

    return init


def autocast_on_cpu(made):
    def init(self, device_type, *args, **kwargs):
        made(self, 'cpu' if device_type == 'cuda' else device_type, *args, **kwargs)

    return init


def generator_of(places):
    "Generators that know which device they were made for."

    class Generator(torch._C.Generator):
        def __new__(cls, device='cpu'):
            made = super().__new__(cls)
            made.place = named(device, places.current)
            return made

        @property
        def device(self):
            return self.place

    return Generator


@contextmanager
def pretended(
    device='cuda:0',  # The current one
):
    "Within the block, CUDA devices can be named and are checked; what `torch.cuda` says of the machine stays true."
    places = Places(device)
    frames = []
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, ACCELERATE_TORCH_DEVICE=str(places.current)))
        stack.enter_context(patch.object(torch.cuda, 'set_device', lambda device: None))
        stack.enter_context(patch.object(torch.autocast, '__init__', autocast_on_cpu(torch.autocast.__init__)))
        stack.enter_context(patch.object(torch.amp.GradScaler, '__init__', on_cpu_in_truth(torch.amp.GradScaler)))
        stack.enter_context(patch.object(torch, 'Generator', generator_of(places)))
        stack.enter_context(patch.object(torch.cuda, 'get_device_name', lambda device=0: 'a pretended one'))
        stack.enter_context(patch('transformers.training_args.is_torch_bf16_gpu_available', lambda: True))
        checked = stack.enter_context(Checked(places, frames))
        stack.enter_context(Said(places, frames))
        yield checked
