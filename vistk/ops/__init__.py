"""Numbers, no models: dense layers, deformable attention, points, masks, assignment."""

from vistk.ops.convolution import conv2d
from vistk.ops.linear import linear, products
from vistk.ops.ms_deform_attn import choose_backend, ms_deform_attn, ms_deform_attn_fused
from vistk.ops.onednn import choose_dense

__all__ = [
    "choose_backend",
    "choose_dense",
    "conv2d",
    "linear",
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "products",
]
