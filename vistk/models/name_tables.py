"""Tables of parameter names: Detectron2's and ours, Detectron2's and Transformers'."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Renames:
    """Pairs of name prefixes, ``{}`` for any number; the first pair that fits decides, either way."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._there = [(pattern_of(a), b) for a, b in pairs]
        self._back = [(pattern_of(b), a) for a, b in pairs]

    def there(self, name: str) -> str | None:
        """From the left column to the right; None where no pair fits."""
        return _renamed(name, self._there)

    def back(self, name: str) -> str | None:
        """From the right column to the left; None where no pair fits."""
        return _renamed(name, self._back)


def pattern_of(prefix: str) -> re.Pattern[str]:
    """A template as a pattern: ``{}`` stands for any number."""
    return re.compile(re.escape(prefix).replace(r"\{\}", r"(\d+)"))


def _renamed(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, replacement in rules:
        found = pattern.match(name)
        if found:
            return replacement.format(*found.groups()) + name[found.end() :]
    return None


_RESNET = [
    ("backbone.stem.conv1.norm.", "segmenter.backbone.body.bn1."),
    ("backbone.stem.conv1.", "segmenter.backbone.body.conv1."),
]
for _stage in range(1, 5):
    _theirs, _ours = f"backbone.res{_stage + 1}.{{}}", f"segmenter.backbone.body.layer{_stage}.{{}}"
    for _conv in range(1, 4):
        _RESNET += [
            (f"{_theirs}.conv{_conv}.norm.", f"{_ours}.bn{_conv}."),
            (f"{_theirs}.conv{_conv}.", f"{_ours}.conv{_conv}."),
        ]
    _RESNET += [
        (f"{_theirs}.shortcut.norm.", f"{_ours}.downsample.1."),
        (f"{_theirs}.shortcut.", f"{_ours}.downsample.0."),
    ]

_SWIN = [("backbone.patch_embed.", "segmenter.backbone.body.patch_embed.")]
for _stage in range(4):
    _SWIN += [
        (f"backbone.layers.{_stage}.blocks.", f"segmenter.backbone.body.layers_{_stage}.blocks."),
        # timm downsamples where a stage begins, the published code where the one before ends
        (f"backbone.layers.{_stage}.downsample.", f"segmenter.backbone.body.layers_{_stage + 1}.downsample."),
        (f"backbone.norm{_stage}.", f"segmenter.backbone.norm{_stage}."),
    ]

DETECTRON2 = Renames(
    [
        *_RESNET,
        *_SWIN,
        ("sem_seg_head.pixel_decoder.", "segmenter.pixel_decoder."),
        ("sem_seg_head.predictor.", "segmenter.transformer_decoder."),
        ("appearance_decoder.", "tracker.appearance_decoder."),
    ]
)
"""Detectron2's names and ours."""

ENCODER = "model.pixel_level_module.encoder"
_PIXELS = "model.pixel_level_module.decoder"
_QUERIES = "model.transformer_module"
_BLOCK = "backbone.layers.{}.blocks.{}"
_HF_BLOCK = f"{ENCODER}.encoder.layers.{{}}.blocks.{{}}"
PREDICTOR = "sem_seg_head.predictor"
_HF_LAYER = f"{_QUERIES}.decoder.layers.{{}}"
_PIXEL_LAYER = "sem_seg_head.pixel_decoder.transformer.encoder.layers.{}"
_HF_PIXEL_LAYER = f"{_PIXELS}.encoder.layers.{{}}"

TRANSFORMERS = Renames(
    [
        ("backbone.patch_embed.proj.", f"{ENCODER}.embeddings.patch_embeddings.projection."),
        ("backbone.patch_embed.norm.", f"{ENCODER}.embeddings.norm."),
        (f"{_BLOCK}.norm1.", f"{_HF_BLOCK}.layernorm_before."),
        (f"{_BLOCK}.norm2.", f"{_HF_BLOCK}.layernorm_after."),
        (f"{_BLOCK}.attn.relative_position_", f"{_HF_BLOCK}.attention.self.relative_position_"),
        (f"{_BLOCK}.attn.proj.", f"{_HF_BLOCK}.attention.output.dense."),
        (f"{_BLOCK}.mlp.fc1.", f"{_HF_BLOCK}.intermediate.dense."),
        (f"{_BLOCK}.mlp.fc2.", f"{_HF_BLOCK}.output.dense."),
        ("backbone.layers.{}.downsample.", f"{ENCODER}.encoder.layers.{{}}.downsample."),
        *((f"backbone.norm{i}.", f"{ENCODER}.hidden_states_norms.stage{i + 1}.") for i in range(4)),
        ("sem_seg_head.pixel_decoder.input_proj.", f"{_PIXELS}.input_projections."),
        ("sem_seg_head.pixel_decoder.transformer.level_embed", f"{_PIXELS}.level_embed"),
        (f"{_PIXEL_LAYER}.self_attn.", f"{_HF_PIXEL_LAYER}.self_attn."),
        (f"{_PIXEL_LAYER}.norm1.", f"{_HF_PIXEL_LAYER}.self_attn_layer_norm."),
        (f"{_PIXEL_LAYER}.linear1.", f"{_HF_PIXEL_LAYER}.fc1."),
        (f"{_PIXEL_LAYER}.linear2.", f"{_HF_PIXEL_LAYER}.fc2."),
        (f"{_PIXEL_LAYER}.norm2.", f"{_HF_PIXEL_LAYER}.final_layer_norm."),
        ("sem_seg_head.pixel_decoder.mask_features.", f"{_PIXELS}.mask_projection."),
        ("sem_seg_head.pixel_decoder.adapter_1.norm.", f"{_PIXELS}.adapter_1.1."),
        ("sem_seg_head.pixel_decoder.adapter_1.", f"{_PIXELS}.adapter_1.0."),
        ("sem_seg_head.pixel_decoder.layer_1.norm.", f"{_PIXELS}.layer_1.1."),
        ("sem_seg_head.pixel_decoder.layer_1.", f"{_PIXELS}.layer_1.0."),
        (
            f"{PREDICTOR}.transformer_self_attention_layers.{{}}.self_attn.out_proj.",
            f"{_HF_LAYER}.self_attn.out_proj.",
        ),
        (f"{PREDICTOR}.transformer_self_attention_layers.{{}}.norm.", f"{_HF_LAYER}.self_attn_layer_norm."),
        (
            f"{PREDICTOR}.transformer_cross_attention_layers.{{}}.multihead_attn.",
            f"{_HF_LAYER}.cross_attn.",
        ),
        (
            f"{PREDICTOR}.transformer_cross_attention_layers.{{}}.norm.",
            f"{_HF_LAYER}.cross_attn_layer_norm.",
        ),
        (f"{PREDICTOR}.transformer_ffn_layers.{{}}.linear1.", f"{_HF_LAYER}.fc1."),
        (f"{PREDICTOR}.transformer_ffn_layers.{{}}.linear2.", f"{_HF_LAYER}.fc2."),
        (f"{PREDICTOR}.transformer_ffn_layers.{{}}.norm.", f"{_HF_LAYER}.final_layer_norm."),
        (f"{PREDICTOR}.decoder_norm.", f"{_QUERIES}.decoder.layernorm."),
        (f"{PREDICTOR}.query_feat.", f"{_QUERIES}.queries_features."),
        (f"{PREDICTOR}.query_embed.", f"{_QUERIES}.queries_embedder."),
        (f"{PREDICTOR}.level_embed.", f"{_QUERIES}.level_embed."),
        *(
            (
                f"{PREDICTOR}.mask_embed.layers.{i}.",
                f"{_QUERIES}.decoder.mask_predictor.mask_embedder.{i}.0.",
            )
            for i in range(3)
        ),
        (f"{PREDICTOR}.class_embed.", "class_predictor."),
        ("criterion.", "criterion."),
    ]
)
"""Detectron2's names and those of Transformers' files, as published by ``facebook/mask2former-*``."""

JOINT = [
    (
        f"{_BLOCK}.attn.qkv.{kind}",
        [f"{_HF_BLOCK}.attention.self.{part}.{kind}" for part in ("query", "key", "value")],
    )
    for kind in ("weight", "bias")
] + [
    (
        f"{PREDICTOR}.transformer_self_attention_layers.{{}}.self_attn.in_proj_{kind}",
        [f"{_HF_LAYER}.self_attn.{part}_proj.{kind}" for part in "qkv"],
    )
    for kind in ("weight", "bias")
]
"""Projections that Transformers splits in three."""

SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(?!model\.|class_predictor\.|criterion\.)", "model."),  # of the model without its class head
        (rf"^({re.escape(ENCODER)})\.(?:swin|model)\.", r"\1."),
        (r"\.hidden_states_norms\.(\d)\.", lambda m: f".hidden_states_norms.stage{int(m[1]) + 1}."),
        (r"(\.blocks\.\d+\.attention)\.q_proj\.", r"\1.self.query."),
        (r"(\.blocks\.\d+\.attention)\.k_proj\.", r"\1.self.key."),
        (r"(\.blocks\.\d+\.attention)\.v_proj\.", r"\1.self.value."),
        (r"(\.blocks\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
        (r"(\.blocks\.\d+\.attention)\.relative_position_bias\.", r"\1.self."),
        (r"(\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"(\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    )
]
"""Spellings of other versions of Transformers (5.x in memory, those before Swin became a backbone of its
own), to the one of the published files."""

NO_PARAMETER = (
    (re.compile(r"(^|\.)criterion\.empty_weight$"), "a setting of the loss"),
    (re.compile(r"\.relative_position_index$"), "computed from the window"),
    (re.compile(rf"^{re.escape(ENCODER)}\.layernorm\.(weight|bias)$"), "without use in the network"),
)
"""What published files hold beside parameters, in Detectron2's or Transformers' spelling, and why it may
be left out."""
