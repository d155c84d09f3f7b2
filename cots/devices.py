"""The default device, and the precision of matrix products on a device."""

import torch


def autocast(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16, except on CPUs without bfloat16 instructions: emulated, it is slower than float32."""
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return torch.autocast(
            "cpu", torch.bfloat16, enabled=bool(features.get("avx512_bf16") or features.get("amx_bf16"))
        )
    return torch.autocast(device.type, torch.bfloat16)


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype of matrix products under `autocast`."""
    with autocast(device):
        return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def default_device() -> torch.device:
    """The accelerator, or the CPU if there is none."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
