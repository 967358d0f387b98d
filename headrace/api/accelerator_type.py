"""What a kind of accelerator is called: by its maker, and as a label."""

import re


def type_label(name: str) -> str:
    """A GPU's name as a label value: ``NVIDIA H100 80GB HBM3`` is ``nvidia-h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:63]
