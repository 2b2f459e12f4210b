"""What params.yaml holds, as frozen dataclasses: data sets, recipes, protocols, rows, tables, machines."""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(extra="forbid", strict=True)


def _team(value: object) -> object:
    ends = list(value) if isinstance(value, list | tuple) else [value, value]
    counts = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
    if not len(ends) == len(counts) == 2 or not 1 <= counts[0] <= counts[1]:
        raise PydanticCustomError("team", "should be a number from 1 on or a range of two, such as [1, 4]")
    return tuple(counts) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, config=STRICT)
class Flow:
    """Optical flow, stored beside the frames: from each to the next, in pixels as stored."""

    algorithm: Literal["tvl1", "dis"]
    bound: float = 20.0  # pixels: clipped to +-bound, then 8 bits, 128 is no motion
    compensated: bool = False  # stored a second time without the camera's motion (TSN section 3.1: warped flow)


@dataclass(frozen=True, config=STRICT)
class Decode:
    """How videos become frames."""

    short_side: int  # pixels of the shorter side as stored; the longer keeps the aspect, rounded to even
    quality: int  # JPEG quality, 1 to 100
    decoder: Literal["ffmpeg", "decord"]
    videos_per_shard: int  # one shard is one task and the unit of resumption
    max_failed: float  # share of videos that may fail before the stage does
    flow: Flow | None = None


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """One data set: where its videos come from and how they are decoded."""

    file: str  # pipeline/datasets/<file>.py
    source: str  # "generated", a URL, or a folder or archive the user has; relative to the project's root
    lists: str | None  # folder of the official list files, where they lie apart from the videos
    options: dict[str, Any]  # what only this data set knows, e.g. shapes' size
    decode: Decode


@dataclass(frozen=True, config=STRICT)
class Augment:
    """What training does to a clip; every frame of a clip gets the same."""

    crop: Literal["random", "corner", "corners", "resized", "center", "padded"]  # see augment.draw()
    scales: tuple[float, ...] = (1.0,)  # random, corner, corners: crop sides as shares of the short side
    max_distort: int = 1  # corner: how many steps width's and height's scale may lie apart
    flip: bool = False  # left-right with probability half, and labels with it: see clips.TrainClips
    squash: bool = False  # crop from the frame squeezed to the square, its aspect lost
    color: Literal["none", "jitter", "space"] = "none"  # jitter: along the colors' main axes; space: and in color space
    pad: float = 0.0  # padded: black pixels at each edge, as a share of the short side
    mixup: float = 0.0  # beta distribution's parameter; 0 is off


@dataclass(frozen=True, config=STRICT)
class Group:
    """A parameter group: the first group whose kind matches a parameter sets its multipliers."""

    kind: Literal["head.weight", "head.bias", "norm", "bias", "attention", "weight"]
    lr: float = 1.0
    decay: float = 1.0


def planes(input: str = "rgb", stack: int = 5) -> int:
    """C of a clip: RGB's three, two for each flow, or all of these."""
    return {"rgb": 3, "rgb+flow": 3 + 2 * stack}.get(input, 2 * stack)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """How to train."""

    epochs: int
    batch: int  # clips a step over all workers: part of the recipe, whatever the number of workers
    micro_batch: int  # clips a forward pass, hence what batch norm sees; a worker does one or more of a step's
    frames: int  # T
    sampling: Literal["segments", "dense", "multirate"]
    size: int  # pixels of the square input
    augment: Augment
    lr: float
    momentum: float
    weight_decay: float
    train: tuple[Literal["train", "val"], ...] = ("train",)  # the parts of a split that are trained on
    input: Literal["rgb", "flow", "warped", "rgb+flow"] = "rgb"  # what a net sees; flow is the data set's decode.flow
    stack: int = 5  # flows stacked at each frame of a clip, two planes each
    loss: Literal["softmax", "sigmoid"] = "softmax"  # sigmoid: every class by itself, for videos of several labels
    stride: int = 1  # frames from one to the next, where the sampling is no segments
    nesterov: bool = False
    dampening: float = 0.0  # of momentum: a steady gradient's step is lr * (1 - dampening) / (1 - momentum)
    steps: tuple[int, ...] = ()  # epochs at which lr is multiplied by `factor`
    factor: float = 0.1
    warmup_epochs: int = 0  # in which lr rises, step by step, in proportion
    dropout: float = 0.0
    head_std: float | None = 0.001  # deviation of the classifier's first weights, biases 0; null: torch's uniform start
    frozen: tuple[str, ...] = ()  # stages whose weights stay as loaded, e.g. [stem, res2]
    # Their batch norm's mode. train: by a batch's own statistics, and the running ones follow, as where a stage is
    # frozen by a learning rate of 0 (Hara's code); eval: as loaded.
    frozen_norms: Literal["train", "eval"] = "train"
    partial_bn: bool = False  # every batch norm but the first in eval mode (TSN section 3.3)
    groups: tuple[Group, ...] = ()
    clip_grad: float | None = None  # largest norm of the gradient
    label_smoothing: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, else fp32

    @property
    def planes(self) -> int:
        return planes(self.input, self.stack)


@dataclass(frozen=True, config=STRICT)
class Protocol:
    """How to test: clips x crops views a video, and how their scores are averaged."""

    clips: int
    crops: Literal["center", "whole", "three", "ten", "squash"]
    sampling: Literal["segments", "random_segments", "dense", "uniform_clips", "parts", "windows", "multirate"]
    size: int  # pixels of the square input
    # softmax: probabilities are averaged; logits: scores are, then softmax; sigmoid: classes by themselves, for mAP
    average: Literal["softmax", "logits", "sigmoid"]
    batch: int  # views a forward pass; fixed, so that scores do not depend on the number of workers
    stride: int = 1
    frames: int | None = None  # T of a clip, where it is not the recipe's, for nets that take any


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """A row of a table: one system on one data set, over splits x seeds."""

    dataset: str
    backbone: str  # models/backbones/<backbone>.py
    variant: str  # which member of that family, e.g. "50" or "tiny"
    attention: str  # models/attention/<attention>.py
    recipe: str
    protocol: str
    splits: tuple[int, ...]
    seeds: tuple[int, ...]
    knobs: dict[str, Any]  # arguments of the attention's attach()
    weights: str | None  # a local path, or URL#sha256=<hex>; null trains from scratch


@dataclass(frozen=True, config=STRICT)
class Fusion:
    """A row of a table made from other rows' predictions: late fusion, a weighted mean of their scores."""

    rows: dict[str, float]  # row -> weight
    outside: dict[str, float] = field(default_factory=dict)  # Parquet file with the columns of predictions -> weight


@dataclass(frozen=True, config=STRICT)
class Trajectories:
    """Improved dense trajectories on a data set, a system without a net; its scores take part in fusions."""

    dataset: str
    splits: tuple[int, ...]
    flow: Literal["farneback", "dis"] = "farneback"
    scales: int = 8  # at most, 1 / sqrt(2) apart
    gaussians: int = 256
    samples: int = 256_000  # descriptors that a codebook is learned from
    seed: int = 0


@dataclass(frozen=True, config=STRICT)
class Subset:
    """Part of a data set: so many classes, and of each so many videos of a part, the same ones everywhere."""

    classes: int
    train: int
    test: int


@dataclass(frozen=True, config=STRICT)
class Tier:
    """How large a suite runs: as its paper has it, or in little."""

    name: Literal["full", "mini"] = "full"
    subset: Subset | None = None  # of every data set; null is all of it
    # What suites refer to: the seeds of every row, the splits of rows that are means over splits, for each backbone the
    # member of its family and the file of its weights, and for a place in a net the side of its maps (ISTPA's knob).
    seeds: tuple[int, ...] = (0,)
    splits: tuple[int, ...] = (1,)
    variant: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str | None] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Table:
    """Rows of a table; with a base, an ablation: every row as its difference from the base."""

    title: str
    rows: tuple[str, ...]
    base: str | None = None


@dataclass(frozen=True, config=STRICT)
class Cluster:
    """Where it runs. Never a stage's params: changing it restales nothing."""

    address: str = "local"  # "local" starts Ray here; RAY_ADDRESS overrides
    # Data-parallel training workers of one (row, split, seed); a range takes what there is, and follows it.
    workers: Annotated[int | tuple[int, int], BeforeValidator(_team)] = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    loader_workers: int = 0  # processes that load clips, for each training worker
    max_failures: int = 3  # restarts of a training run or task whose process died
    storage: str = "data/work"  # training state that a crash must not lose; on a cluster a folder that all nodes see

    @property
    def team(self) -> tuple[int, int]:
        """The fewest and the most training workers of one (row, split, seed)."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)


@dataclass(frozen=True, config=STRICT)
class Params:
    suite: str
    datasets: dict[str, Dataset]
    recipes: dict[str, Recipe]
    protocols: dict[str, Protocol]
    experiments: dict[str, Experiment]
    tables: dict[str, Table]
    fusions: dict[str, Fusion] = field(default_factory=dict)
    trajectories: dict[str, Trajectories] = field(default_factory=dict)
    tier: Tier = field(default_factory=Tier)
    cluster: Cluster = field(default_factory=Cluster)
