"""The nets: a backbone both arms share, and a head, the only thing in which they differ."""

from gapbench.models import backbones, heads  # which register what is ours, before anyone else can
from gapbench.models.registry import register_backbone, register_head

__all__ = ["backbones", "heads", "register_backbone", "register_head"]
