"""Numbers, no models: deformable attention, points, masks, assignment."""

from vistk.ops.ms_deform_attn import choose_backend, ms_deform_attn, ms_deform_attn_fused

__all__ = ["choose_backend", "ms_deform_attn", "ms_deform_attn_fused"]
