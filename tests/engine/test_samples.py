from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vistk
from vistk.engine.infer import Video
from vistk.engine.samples import Sampler, undisturbed
from vistk.engine.video_tracker import EvalConfig
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.trackers.minvis import MinVIS


def draws():
    return random.random(), float(np.random.random()), float(torch.rand(()))


def seed():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def modes(module):
    return {name: part.training for name, part in module.named_modules()}


def test_random_numbers_go_on_as_if_nothing_had_been():
    module = nn.Linear(1, 1)
    seed()
    wanted = draws(), draws()
    seed()
    first = draws()
    with undisturbed(module):
        draws()
    assert (first, draws()) == wanted


def test_every_part_gets_its_mode_back_after_an_error_too():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(1), nn.Dropout())).train()
    module[1].eval()
    before = modes(module)
    inside = []

    def fail():
        with undisturbed(module):
            inside.extend(modes(module).values())
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not any(inside)
    assert modes(module) == before
    assert module[0].training
    assert not module[1][1].training


@pytest.fixture(scope="module")
def model():
    segmenter = Segmenter(TinySegmenterConfig(), 2)
    tracker = MinVIS(
        MinVIS.Config(),
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=2,
    )
    return segmenter.train(), tracker.train()


def sampler(folder, frames, draw, every=2):
    readers = [partial(frames.__getitem__, t) for t in range(len(frames))]
    video = Video(readers, tuple(frames.shape[-2:]), video_id=5)
    return Sampler(video, every, draw, folder, EvalConfig())


def test_a_sample_is_what_predict_says(model, tmp_path):
    frames = torch.randint(0, 256, (3, 3, 23, 83), dtype=torch.uint8)
    seen = []

    def draw(prediction):
        seen.append(prediction)
        return Image.fromarray(np.full((2, 3, 3), 7, np.uint8))

    before = modes(model[0])
    sampler(tmp_path / "samples", frames, draw).take(*model, done=40)
    assert modes(model[0]) == before
    assert seen[0].to_ytvis() == vistk.predict(*model, frames, video_id=5).to_ytvis()
    assert seen[0].to_ytvis()
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["0000040.png"]
    assert Image.open(tmp_path / "samples" / "0000040.png").getpixel((0, 0)) == (7, 7, 7)


def test_a_step_after_a_sample_has_the_gradients_of_one_without(model, tmp_path):
    frames = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    take = partial(sampler(tmp_path, frames, lambda _: Image.new("RGB", (1, 1))).take, *model)

    def gradients():
        for parameter in model[0].parameters():
            parameter.grad = None
        torch.manual_seed(3)
        out = model[0](frames[None], torch.tensor([[32, 32]]))
        out.mask_logits.square().mean().backward()
        return [p.grad.clone() for p in model[0].parameters() if p.grad is not None]

    state = {k: v.clone() for k, v in model[0].state_dict().items()}
    without = gradients()
    model[0].load_state_dict(state)  # running means have moved
    take(done=2)
    after = gradients()
    assert len(without) == len(after) > 0
    assert all(torch.equal(a, b) for a, b in zip(without, after, strict=True))


@pytest.mark.parametrize(("done", "due"), [(1, False), (2, True), (3, False), (4, True), (5, True)])
def test_when_samples_are_due(tmp_path, done, due):
    assert sampler(tmp_path, torch.zeros(1, 3, 8, 8), None).due(done, steps=5) is due
