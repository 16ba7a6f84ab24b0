"""All trackers keep the contract; trackers that break it are caught by the check that is meant to."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches, TrackedFrame
from vistk.trackers import contract
from vistk.trackers.association import slots_frame
from vistk.trackers.base import Tracker
from vistk.trackers.contract import CHECKS, ContractError, Subject, check_tracker
from vistk.trackers.contract_videos import make_videos, random_order
from vistk.trackers.identity import Identity
from vistk.trackers.mask_iou import MaskIoU
from vistk.trackers.minvis import MinVIS, MinVISConfig, MinVISState
from vistk.trackers.registry import tracker_names
from vistk.trackers.visage import VISAGE, VISAGEConfig


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", tracker_names())
def test_registered_trackers(name: str, check: Callable[[Subject], None]) -> None:
    check(Subject.of(name))


@pytest.mark.parametrize(
    "config",
    [
        VISAGEConfig(levels=[], appearance_weight=0.0),
        VISAGEConfig(query_head=False, levels=["res2"], hidden_dim=7),
        VISAGEConfig(memory_weighting="uniform", score_weighting=False, memory_frames=2),
        VISAGEConfig(contrast_weight=0.0, auxiliary_weight=0.0),
        VISAGEConfig(levels=[], appearance_weight=0.0, query_head=False),
    ],
)
def test_other_configs(config: VISAGEConfig) -> None:
    check_tracker(VISAGE, config)


def test_every_check_is_listed() -> None:
    named = {name for name in vars(contract) if name.startswith("check_") and name != "check_tracker"}
    assert {check.__name__ for check in CHECKS} == named


class Backwards(MinVIS):
    """Keeps the contract offline: answers at the end, with the tracks of the video run backwards."""

    def start(self) -> Any:
        return []

    def similarities(self, state: Any, frame: FrameQueries) -> dict[str, Tensor]:
        return super().similarities(state, frame) if isinstance(state, MinVISState) else {}

    def step(self, state: Any, frame: FrameQueries) -> TrackedFrame:
        state.append(frame)
        return slots_frame(frame)

    def finish(self, state: Any) -> list[TrackedFrame]:
        inner = super().start()
        return [super(Backwards, self).step(inner, frame) for frame in reversed(state)][::-1]


class BirthAndDeath(Tracker[dict[int, Tensor]]):
    """Keeps the contract with a set of tracks that grows, and with frames in which nothing is reported."""

    Config = MinVISConfig

    def start(self) -> dict[int, Tensor]:
        return {}

    def step(self, state: dict[int, Tensor], frame: FrameQueries) -> TrackedFrame:
        kept = (frame.logits.argmax(-1) < self.num_classes).nonzero()[:, 0].tolist()
        ids, free = [], set(state)
        for query in kept:
            vector = frame.vectors["query"][query]
            cosine = {i: float(torch.cosine_similarity(vector, state[i], dim=0)) for i in free}
            track = (
                max(cosine, key=cosine.__getitem__) if max(cosine.values(), default=0) > 0.8 else len(state)
            )
            free.discard(track)
            state[track] = vector.detach()
            ids.append(track)
        return TrackedFrame(
            torch.tensor(ids, dtype=torch.int64), torch.tensor(kept, dtype=torch.int64), frame.logits[kept]
        )


class NothingToReport(MinVIS):
    """Keeps the contract with no track in any frame."""

    def similarities(self, state: MinVISState, frame: FrameQueries) -> dict[str, Tensor]:
        return {}

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        none = torch.zeros(0, dtype=torch.int64)
        return TrackedFrame(none, none, frame.logits[:0])


class PredictsMasksAnew(MinVIS):
    """Keeps the contract with masks of its own, made from the mask features."""

    def describe(self, out: FrameOutput) -> FrameQueries:
        return replace(super().describe(out), mask_features=out.mask_features)

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        assert frame.mask_features is not None
        masks = torch.einsum("qc,chw->qhw", frame.vectors["query"], frame.mask_features)
        return replace(
            tracked,
            query_index=torch.full_like(tracked.query_index, -1),
            mask_logits=masks[tracked.query_index],
        )


class VectorsAlone(MinVIS):
    """Keeps the contract without handing masks on: the engine gives every frame its own."""

    def describe(self, out: FrameOutput) -> FrameQueries:
        return FrameQueries(out.logits, {"query": out.embeds})


@pytest.mark.parametrize(
    "tracker", [Backwards, BirthAndDeath, NothingToReport, PredictsMasksAnew, VectorsAlone]
)
def test_other_kinds_of_trackers_fit(tracker: type[Tracker[Any]]) -> None:
    check_tracker(tracker)


class SameIds(MinVIS):
    """Gives every track the same id."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return replace(tracked, track_ids=torch.zeros_like(tracked.track_ids))


class QueryTwice(MinVIS):
    """Puts one query in two tracks."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return replace(tracked, query_index=tracked.query_index.clamp(min=1))


class NegativeIds(MinVIS):
    """Counts tracks from -1, which stands for nobody."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return replace(tracked, track_ids=tracked.track_ids - 1)


class AnswersWithIds(MinVIS):
    """Answers with a tensor."""

    def step(self, state: MinVISState, frame: FrameQueries) -> Any:
        return super().step(state, frame).track_ids


class IdsInList(MinVIS):
    """Has ids that are no tensor."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return replace(tracked, track_ids=tracked.track_ids.tolist())


class LogitsOfClasses(MinVIS):
    """Leaves out "no object"."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return replace(tracked, logits=tracked.logits[:, :-1])


class OneLogitNotFinite(MinVIS):
    """Divides one logit by zero."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        divisor = torch.ones_like(tracked.logits)
        divisor[2, 1] = 0
        return replace(tracked, logits=tracked.logits / divisor)


class FlatMasks(MinVIS):
    """Makes masks with one dim for the pixels."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return replace(tracked, mask_logits=torch.zeros(len(tracked.track_ids), 384))


class BoolMasks(MinVIS):
    """Makes masks, not their logits."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return replace(tracked, mask_logits=torch.ones(len(tracked.track_ids), 16, 24, dtype=torch.bool))


class FinishesWithNumber(MinVIS):
    def finish(self, state: MinVISState) -> Any:
        return 3


class FlatVectors(MinVIS):
    """Makes one vector of all queries."""

    def describe(self, out: FrameOutput) -> FrameQueries:
        return replace(super().describe(out), vectors={"query": out.embeds.flatten(-2)})


class LossIsNumber(VISAGE):
    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Any]:
        return {"reid": 0.0}


class LossPerQuery(VISAGE):
    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        return {"reid": queries.vectors["query"].sum(-1)}


class LossesInList(VISAGE):
    def losses(self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches) -> Any:
        return [queries.vectors["query"].sum()]


class NoSuchField(MinVIS):
    association_fields = ("rate",)


class SearchesOtherFields(VISAGE):
    search_space: ClassVar[Any] = {"contrast_weight": (1.0, 2.0)}


class AssociationThatTrains(VISAGE):
    """Says that the weight of a loss is of association alone."""

    association_fields = (*VISAGE.association_fields, "contrast_weight")
    search_space: ClassVar[Any] = {**VISAGE.search_space, "contrast_weight": (1.0, 2.0)}


class AssociationThatDescribes(VISAGE):
    """Says that the query head is of association alone."""

    association_fields = (*VISAGE.association_fields, "query_head")


class StateInModule(MinVIS):
    """Remembers the previous frame in the module."""

    def __init__(self, config: MinVISConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        self.mine = MinVISState()

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        return super().step(self.mine, frame)


class StateHandedOut(MinVIS):
    """Every video gets the one state that the module keeps."""

    def __init__(self, config: MinVISConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        self.seen: dict[str, int] = {}

    def start(self) -> MinVISState:
        state = super().start()
        state.seen = self.seen  # type: ignore[attr-defined]
        return state


class StateInClass(MinVIS):
    """Counts track ids for all videos together."""

    next_id: ClassVar[int] = 0

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        if state.previous is None:
            state.offset = StateInClass.next_id  # type: ignore[attr-defined]
            StateInClass.next_id += frame.num_queries
        tracked = super().step(state, frame)
        return replace(tracked, track_ids=tracked.track_ids + state.offset)  # type: ignore[attr-defined]


class WritesQueries(MinVIS):
    """Normalises the vectors of a frame in place."""

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        frame.vectors["query"].div_(frame.vectors["query"].norm(dim=-1, keepdim=True) + 1e-6)
        return super().step(state, frame)


class WritesOutput(MinVIS):
    """Shifts the embeddings in place."""

    def describe(self, out: FrameOutput) -> FrameQueries:
        out.embeds.add_(1.0)
        return super().describe(out)


class WritesLabels(VISAGE):
    """Overwrites the labels of absent instances."""

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        for target in targets:
            target.labels[~target.visible.all(1)] = self.num_classes
        return super().losses(queries, targets, matches)


class OrderMatters(Identity):
    """Says that the order of queries does not matter."""

    query_order_matters = False


class OrderSaidToMatter(MinVIS):
    query_order_matters = True


class OverWindows(MinVIS):
    """Centres the embeddings over the frames that happen to be described together."""

    def describe(self, out: FrameOutput) -> FrameQueries:
        queries = super().describe(out)
        lead = tuple(range(out.embeds.ndim - 2))
        centred = out.embeds - 3 * (out.embeds.mean(lead, keepdim=True) if lead else out.embeds)
        return replace(queries, vectors={"query": centred})


class NeedsLiveMasks(MaskIoU):
    """Leaves out the tracks without live mask."""

    def step(self, state: Any, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return tracked if frame.mask_logits is not None else replace(tracked, logits=tracked.logits + 1)


class DividesByMask(MinVIS):
    """Divides by the area of the masks."""

    def describe(self, out: FrameOutput) -> FrameQueries:
        area = (out.mask_logits > 0).sum((-1, -2))[..., None]
        return replace(super().describe(out), vectors={"query": out.embeds / area})


class MeanOverNothing(VISAGE):
    """Adds a mean over the instances."""

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        extra = torch.stack([query.float().mean() for query in matches.query_index]).sum()
        return {**super().losses(queries, targets, matches), "extra": extra}


class DifferenceInTime(VISAGE):
    """Averages over the frame pairs without asking whether there are any."""

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        return {"smooth": queries.vectors["query"].diff(dim=1).mean()}


class NoLossWithoutMatch(VISAGE):
    """Returns constants where nothing is matched."""

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        if all((query < 0).all() for query in matches.query_index):
            return {"reid": torch.zeros(())}
        return super().losses(queries, targets, matches)


class UnusedLayer(VISAGE):
    """Has a layer that takes part in nothing."""

    def __init__(self, config: VISAGEConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        self.unused = nn.Linear(2, 2)


@dataclass
class TensorConfig(MinVISConfig):
    weights: Tensor = field(default_factory=lambda: torch.ones(2))


class TensorInConfig(MinVIS):
    Config = TensorConfig


class WritesConfig(VISAGE):
    """Fills in a field of the config it was given."""

    def __init__(self, config: VISAGEConfig, **sizes: Any) -> None:
        config.hidden_dim = 16
        super().__init__(config, **sizes)


class MemoryAsBuffer(MinVIS):
    """Keeps a running mean in a buffer."""

    def __init__(self, config: MinVISConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        self.register_buffer("mean", torch.zeros(self.embed_dim))

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        self.mean = 0.9 * self.mean + 0.1 * frame.vectors["query"].mean(0)
        return super().step(state, frame)


class WeightsOutsideStateDict(VISAGE):
    """Has random weights that are neither parameters nor buffers."""

    def __init__(self, config: VISAGEConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        self.mix = torch.randn(self.embed_dim, self.embed_dim)

    def describe(self, out: FrameOutput) -> FrameQueries:
        queries = super().describe(out)
        noise = torch.linalg.matrix_exp(self.mix) / 10
        return replace(queries, logits=queries.logits + noise[0, 0].abs())


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (SameIds, contract.check_frames, "track ids are not unique"),
        (QueryTwice, contract.check_frames, "a query is in two tracks"),
        (NegativeIds, contract.check_frames, r"track ids are \[-1, 0, 1, 2, 3, 4, 5\], expected 0 or more"),
        (AnswersWithIds, contract.check_frames, r"step\(\) or finish\(\) gave Tensor, expected TrackedFrame"),
        (IdsInList, contract.check_frames, "track_ids is list, expected int64"),
        (LogitsOfClasses, contract.check_frames, r"\(7, 3\), expected floats of shape \(7, 4\)"),
        (OneLogitNotFinite, contract.check_frames, "logits have 1 of 28 values that are not finite"),
        (FlatMasks, contract.check_frames, r"\(7, 384\), expected floats of shape \(7, any, any\)"),
        (BoolMasks, contract.check_frames, r"mask_logits are torch.bool \(7, 16, 24\), expected floats"),
        (FinishesWithNumber, contract.check_frames, r"finish\(\) returned int, expected None or a list"),
        (FlatVectors, contract.check_frames, r"'query' as .* \(1, 6, 224\), .* shape \(1, 6, 7, any\)"),
        (StateInModule, contract.check_streams_do_not_mix, "streams mix"),
        (StateInClass, contract.check_streams_do_not_mix, "streams mix"),
        (StateHandedOut, contract.check_streams_do_not_mix, "the states of two videos share dict"),
        (
            WritesQueries,
            contract.check_input_unchanged,
            r"step\(\) or finish\(\) changed .*: frame.0.vectors.query, 2",
        ),
        (WritesOutput, contract.check_input_unchanged, r"describe\(\) changed .*: embeds, .* by up to 1$"),
        (
            WritesLabels,
            contract.check_input_unchanged,
            r"losses\(\) changed .*: targets.0.labels, 1 of 3 values, by up to 2",
        ),
        (OrderMatters, contract.check_query_order, "order of the queries in a frame changed the tracks"),
        (OrderSaidToMatter, contract.check_query_order, "made no difference"),
        (OverWindows, contract.check_windows, "windows of 1 frames differ"),
        (OverWindows, contract.check_leading_dims, r"gives other 'query' vectors .*: 2\d\d of 224 values"),
        (NeedsLiveMasks, contract.check_cached_equals_live, "other tracks than live ones"),
        (LossIsNumber, contract.check_no_instance, "'reid' is float, expected a tensor without dims"),
        (LossPerQuery, contract.check_no_instance, r"'reid' is torch.float32 \(2, 6, 7\), expected"),
        (LossesInList, contract.check_no_instance, r"losses\(\) returned list, expected a dict"),
        (MeanOverNothing, contract.check_no_instance, "'extra' is nan"),
        (DifferenceInTime, contract.check_one_frame_clip, "'smooth' is nan"),
        (NoLossWithoutMatch, contract.check_gradients, "no matched instance, the losses are cut"),
        (UnusedLayer, contract.check_gradients, "unused.weight gets no gradient"),
        (NoSuchField, contract.check_association_fields, "association_fields has rate, expected some of"),
        (
            SearchesOtherFields,
            contract.check_association_fields,
            "search_space has contrast_weight, expected",
        ),
        (
            AssociationThatTrains,
            contract.check_association_fields,
            "contrast_weight=1.0 changes the training: loss.reid_query, 1 of 1 values",
        ),
        (
            AssociationThatDescribes,
            contract.check_association_fields,
            "query_head=False changes the training: .*weight.* came or went",
        ),
        (TensorInConfig, contract.check_config_round_trip, "no plain value"),
        (WritesConfig, contract.check_config_round_trip, "changed the config"),
        (
            MemoryAsBuffer,
            contract.check_state_dict_round_trip,
            "changed the state dict.*: mean, 32 of 32 values",
        ),
        (WeightsOutsideStateDict, contract.check_state_dict_round_trip, "same weights differs"),
    ],
)
def test_broken_trackers_are_caught(broken: type, check: Callable[[Subject], None], message: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        check(Subject.of(broken))
    assert str(caught.value).startswith(f"{broken.__name__}: ")


def test_a_config_with_an_argument_is_refused() -> None:
    @dataclass
    class NeedsRate:
        rate: float

    class NoDefault(MinVIS):
        Config = NeedsRate

    class NotADataclass(MinVIS):
        Config = dict

    with pytest.raises(ContractError, match=r"NoDefault: Config\(\) fails: .*'rate'; expected a default"):
        check_tracker(NoDefault)
    with pytest.raises(ContractError, match="NotADataclass: Config is <class 'dict'>, expected a dataclass"):
        check_tracker(NotADataclass)


def test_not_finite_similarities_of_empty_frames_are_caught() -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        contract.check_empty_frames(Subject.of(DividesByMask))


def test_check_tracker_says_which_check_failed() -> None:
    with pytest.raises(ContractError, match="streams mix") as caught:
        check_tracker(StateInModule)
    (note,) = caught.value.__notes__
    assert note.startswith("in check_streams_do_not_mix(StateInModule): Two videos tracked in turns by one")


def test_checks_leave_the_random_generator_alone() -> None:
    torch.manual_seed(0)
    before = copy.copy(torch.get_rng_state())
    check_tracker("visage")
    assert torch.equal(torch.get_rng_state(), before)


def test_videos_of_the_contract_are_consistent() -> None:
    videos = make_videos(0, clips=2, frames=4)
    again = videos.with_order(random_order(7, tuple(videos.objects.shape)))
    for v in (videos, again):
        for b, (targets, query) in enumerate(zip(v.targets, v.matches.query_index, strict=True)):
            for n, t in targets.visible.nonzero().tolist():
                assert v.objects[b, t, query[n, t]] == n
                small = v.out.mask_logits[b, t, query[n, t]] > 0
                assert torch.equal(targets.masks[n, t, ::4, ::4], small)
            assert (query[~targets.visible] == -1).all()
            assert (~targets.visible).sum() == 1
    position = [v.objects[1, 3].argsort() for v in (videos, again)]
    assert torch.equal(videos.out.embeds[1, 3][position[0]], again.out.embeds[1, 3][position[1]])
