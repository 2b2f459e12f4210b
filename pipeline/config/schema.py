"""What params.yaml holds, as frozen dataclasses: data sets, recipes, protocols, rows, tables, machines."""

import math
from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(extra="forbid", strict=True)
# Names of rows, data sets, recipes, protocols, tables and suites: they reach the shell, file names and URLs.
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_+-]{0,99}$"
MOST = 2**31 - 1  # what every library that a count reaches still takes

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "must not hold a value twice")
    return values


def _range(words: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """A check of a number; `words` follow "must be"."""

    def check(value: Any) -> Any:
        if not math.isfinite(value) or not holds(value):
            raise PydanticCustomError("range", f"must be {words}")
        return value

    return AfterValidator(check)


Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, _range(f"from 1 to {MOST}", lambda value: 1 <= value <= MOST)]
Whole = Annotated[int, _range(f"from 0 to {MOST}", lambda value: 0 <= value <= MOST)]
Pixels = Annotated[int, _range("from 1 to 65500", lambda value: 1 <= value <= 65_500)]  # a JPEG's longest side
Quality = Annotated[int, _range("from 1 to 100", lambda value: 1 <= value <= 100)]
Processes = Annotated[int, _range("from 0 to 1024", lambda value: 0 <= value <= 1024)]
Seed = Annotated[int, _range("from 0 to 4294967295", lambda value: 0 <= value < 2**32)]
Positive = Annotated[float, _range("above 0", lambda value: value > 0)]
AtLeastZero = Annotated[float, _range("at least 0", lambda value: value >= 0)]
Share = Annotated[float, _range("from 0 to 1", lambda value: 0 <= value <= 1)]
Side = Annotated[float, _range("above 0 and at most 1", lambda value: 0 < value <= 1)]
BelowOne = Annotated[float, _range("at least 0 and below 1", lambda value: 0 <= value < 1)]
Splits = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]


def _team(value: object) -> object:
    ends = list(value) if isinstance(value, list | tuple) else [value, value]
    counts = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
    if not len(ends) == len(counts) == 2 or not 1 <= counts[0] <= counts[1] <= MOST:
        raise PydanticCustomError("team", "should be a number from 1 on or a range of two, such as [1, 4]")
    return tuple(counts) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, config=STRICT)
class Flow:
    """Optical flow, stored beside the frames: from each to the next, in pixels as stored."""

    algorithm: Literal["tvl1", "dis"]
    bound: Positive = 20.0  # pixels: clipped to +-bound, then 8 bits, 128 is no motion
    compensated: bool = False  # stored a second time without the camera's motion (TSN section 3.1: warped flow)


@dataclass(frozen=True, config=STRICT)
class Decode:
    """How videos become frames."""

    short_side: Pixels  # pixels of the shorter side as stored; the longer keeps the aspect, rounded to even
    quality: Quality  # of JPEG
    decoder: Literal["ffmpeg", "decord"]
    videos_per_shard: Count  # one shard is one task and the unit of resumption
    max_failed: Share  # share of videos that may fail before the stage does
    flow: Flow | None = None


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """One data set: where its videos come from and how they are decoded."""

    file: Text  # pipeline/datasets/<file>.py
    source: Text  # "generated", a URL, or a folder or archive the user has; relative to the project's root
    lists: Text | None  # folder of the official list files, where they lie apart from the videos
    options: dict[str, Any]  # what only this data set knows, e.g. shapes' size
    decode: Decode


@dataclass(frozen=True, config=STRICT)
class Augment:
    """What training does to a clip; every frame of a clip gets the same."""

    crop: Literal["random", "corner", "corners", "resized", "center", "padded"]  # see augment.draw()
    # random, corner, corners: crop sides as shares of the short side
    scales: Annotated[tuple[Side, ...], Field(min_length=1)] = (1.0,)
    max_distort: Whole = 1  # corner: how many steps width's and height's scale may lie apart
    flip: bool = False  # left-right with probability half, and labels with it: see clips.TrainClips
    squash: bool = False  # crop from the frame squeezed to the square, its aspect lost
    color: Literal["none", "jitter", "space"] = "none"  # jitter: along the colors' main axes; space: and in color space
    pad: BelowOne = 0.0  # padded: black pixels at each edge, as a share of the short side
    mixup: AtLeastZero = 0.0  # beta distribution's parameter; 0 is off


@dataclass(frozen=True, config=STRICT)
class Group:
    """A parameter group: the first group whose kind matches a parameter sets its multipliers."""

    kind: Literal["head.weight", "head.bias", "norm", "bias", "attention", "weight"]
    lr: AtLeastZero = 1.0
    decay: AtLeastZero = 1.0


def planes(input: str = "rgb", stack: int = 5) -> int:
    """C of a clip: RGB's three, two for each flow, or all of these."""
    return {"rgb": 3, "rgb+flow": 3 + 2 * stack}.get(input, 2 * stack)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """How to train."""

    epochs: Count
    batch: Count  # clips a step over all workers: part of the recipe, whatever the number of workers
    micro_batch: Count  # clips a forward pass, hence what batch norm sees; a worker does one or more of a step's
    frames: Count  # T
    sampling: Literal["segments", "dense", "multirate"]
    size: Pixels  # pixels of the square input
    augment: Augment
    lr: Positive
    momentum: BelowOne
    weight_decay: AtLeastZero
    # the parts of a split that are trained on
    train: Annotated[tuple[Literal["train", "val"], ...], Field(min_length=1), AfterValidator(_distinct)] = ("train",)
    input: Literal["rgb", "flow", "warped", "rgb+flow"] = "rgb"  # what a net sees; flow is the data set's decode.flow
    stack: Count = 5  # flows stacked at each frame of a clip, two planes each
    loss: Literal["softmax", "sigmoid"] = "softmax"  # sigmoid: every class by itself, for videos of several labels
    stride: Count = 1  # frames from one to the next, where the sampling is no segments
    nesterov: bool = False
    dampening: BelowOne = 0.0  # of momentum: a steady gradient's step is lr * (1 - dampening) / (1 - momentum)
    steps: Annotated[tuple[Count, ...], AfterValidator(_distinct)] = ()  # epochs at which lr is multiplied by `factor`
    factor: Positive = 0.1
    warmup_epochs: Whole = 0  # in which lr rises, step by step, in proportion
    dropout: BelowOne = 0.0
    head_std: Positive | None = 0.001  # of the classifier's first weights, biases 0; null: torch's uniform start
    frozen: tuple[str, ...] = ()  # stages whose weights stay as loaded, e.g. [stem, res2]
    # Their batch norm's mode. train: by a batch's own statistics, and the running ones follow, as where a stage is
    # frozen by a learning rate of 0 (Hara's code); eval: as loaded.
    frozen_norms: Literal["train", "eval"] = "train"
    partial_bn: bool = False  # every batch norm but the first in eval mode (TSN section 3.3)
    groups: tuple[Group, ...] = ()
    clip_grad: Positive | None = None  # largest norm of the gradient
    label_smoothing: BelowOne = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, else fp32
    threads: Count = 1  # CPU threads of a process that trains or scores; another number rounds sums otherwise

    @property
    def planes(self) -> int:
        return planes(self.input, self.stack)


@dataclass(frozen=True, config=STRICT)
class Protocol:
    """How to test: clips x crops views a video, and how their scores are averaged."""

    clips: Count
    crops: Literal["center", "whole", "three", "ten", "squash"]
    sampling: Literal["segments", "random_segments", "dense", "uniform_clips", "parts", "windows", "multirate"]
    size: Pixels  # pixels of the square input
    # softmax: probabilities are averaged; logits: scores are, then softmax; sigmoid: classes by themselves, for mAP
    average: Literal["softmax", "logits", "sigmoid"]
    batch: Count  # views a forward pass; fixed, so that scores do not depend on the number of workers
    stride: Count = 1
    frames: Count | None = None  # T of a clip, where it is not the recipe's, for nets that take any


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """A row of a table: one system on one data set, over splits x seeds."""

    dataset: str
    backbone: str  # models/backbones/<backbone>.py
    variant: str  # which member of that family, e.g. "50" or "tiny"
    attention: str  # models/attention/<attention>.py
    recipe: str
    protocol: str
    splits: Splits
    seeds: Seeds
    knobs: dict[str, Any]  # arguments of the attention's attach()
    weights: str | None  # a name of conf/weights/, a path, or URL#sha256=<hex>; null trains from scratch


@dataclass(frozen=True, config=STRICT)
class Fusion:
    """A row of a table made from other rows' predictions: late fusion, a weighted mean of their scores."""

    rows: Annotated[dict[str, Positive], Field(min_length=1)]  # row -> weight
    outside: dict[str, Positive] = field(default_factory=dict)  # Parquet file with the columns of predictions -> weight


@dataclass(frozen=True, config=STRICT)
class Trajectories:
    """Improved dense trajectories on a data set, a system without a net; its scores take part in fusions."""

    dataset: str
    splits: Splits
    flow: Literal["farneback", "dis"] = "farneback"
    scales: Count = 8  # at most, 1 / sqrt(2) apart
    gaussians: Count = 256
    samples: Count = 256_000  # descriptors that a codebook is learned from
    seed: Seed = 0


@dataclass(frozen=True, config=STRICT)
class Subset:
    """Part of a data set: so many classes, and of each so many videos of a part, the same ones everywhere."""

    classes: Count
    train: Whole
    test: Whole


@dataclass(frozen=True, config=STRICT)
class Tier:
    """How large a suite runs: as its paper has it, or in little."""

    name: Literal["full", "mini"] = "full"
    subset: Subset | None = None  # of every data set; null is all of it
    # What suites refer to: the seeds of every row, the splits of rows that are means over splits, for each backbone the
    # member of its family and the file of its weights, and for a place in a net the side of its maps (ISTPA's knob).
    seeds: Seeds = (0,)
    splits: Splits = (1,)
    variant: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str | None] = field(default_factory=dict)
    positions: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Table:
    """Rows of a table; with a base, an ablation: every row as its difference from the base."""

    title: str
    rows: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
    base: str | None = None


@dataclass(frozen=True, config=STRICT)
class Cluster:
    """The machines. Never a stage's params: no field changes a byte (tests/train/test_resources.py says why)."""

    address: Text = "local"  # "local" starts Ray here; RAY_ADDRESS overrides
    # Data-parallel training workers of one (row, split, seed); a range takes what there is, and follows it.
    workers: Annotated[int | tuple[int, int], BeforeValidator(_team)] = 1
    cpus_per_worker: Count = 1  # reserved; how many threads compute is the recipe's
    gpus_per_worker: AtLeastZero = 0.0
    loader_workers: Processes = 0  # processes that load clips, for each training worker
    max_failures: Whole = 3  # restarts of a training run or task whose process died
    storage: Text = "data/work"  # training state that a crash must not lose; on a cluster a folder that all nodes see

    @property
    def team(self) -> tuple[int, int]:
        """The fewest and the most training workers of one (row, split, seed)."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)


@dataclass(frozen=True, config=STRICT)
class Params:
    suite: Name
    datasets: dict[Name, Dataset]
    recipes: dict[Name, Recipe]
    protocols: dict[Name, Protocol]
    experiments: dict[Name, Experiment]
    tables: dict[Name, Table]
    fusions: dict[Name, Fusion] = field(default_factory=dict)
    trajectories: dict[Name, Trajectories] = field(default_factory=dict)
    tier: Tier = field(default_factory=Tier)
    cluster: Cluster = field(default_factory=Cluster)
