"""A platform `cpu` for verl, on which one of Ray's logical GPUs is a process; for tests.

VERL_USE_EXTERNAL_MODULES=verl_cpu,verl_hf and VERL_PLATFORM=cpu load it into every process of verl's, with this folder
on PYTHONPATH."""

import functools
from contextlib import contextmanager

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry
from verl.utils import distributed

NOTHING = 0.0


class Memory:
    "Stands where verl expects `torch.cuda`: there is no memory of a device to count or to free."

    def is_available(self):
        return False

    def get_device_name(self):
        return 'CPU'

    def mem_get_info(self):
        return NOTHING, NOTHING

    def set_rng_state(self, state):
        torch.set_rng_state(state)

    def __getattr__(self, name):
        if name.startswith(('memory', 'max_memory')):
            return lambda *args: NOTHING
        if name in ('empty_cache', 'synchronize', 'set_device', 'ipc_collect', 'reset_peak_memory_stats'):
            return lambda *args: None
        raise AttributeError(f'verl asks for the device function {name}, which has no stand-in on a CPU')


@PlatformRegistry.register(platform='cpu')
class CpuPlatform(PlatformBase):
    "Tensors on the CPU, gloo between processes; a GPU of Ray's is a number."

    device_name = 'cpu'
    vendor_name = 'cpu'
    device_module = Memory()

    def is_available(self):
        return True

    def current_device(self):
        return torch.device('cpu')

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    def manual_seed_all(self, seed):
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return 'gloo'

    def visible_devices_envvar(self):
        return 'CUDA_VISIBLE_DEVICES'

    @contextmanager
    def nvtx_range(self, msg):
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return 'GPU'

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


# verl asks for `cpu:gloo,<device>:<backend>`, which on a CPU names one device twice, an error of torch's
distributed.initialize_global_process_group_ray = functools.partial(
    distributed.initialize_global_process_group_ray, backend='cpu:gloo'
)
