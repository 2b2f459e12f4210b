"""Schema of params.yaml, as frozen dataclasses."""

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(extra="forbid", strict=True)
# Names of rows, data sets, recipes, protocols, tables and suites: they reach the shell, file names and URLs.
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_+-]{0,99}$"
MOST = 2**31 - 1  # largest count that all libraries take
AUTO = "auto"  # of cluster: from what the machines have (cluster/auto.py)

T = TypeVar("T")


def requirement(error: Mapping[str, Any]) -> str:
    """Return the rule that one of pydantic's errors breaks, e.g. "must be above 0"."""
    if error["type"] in ("too_short", "string_too_short"):
        return "must not be empty"
    words = str(error["msg"]).replace("Input should be", "must be", 1)
    return words if words.startswith("must") else f"must be valid: {words}"


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "must not hold a value twice")
    return values


def _range(words: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """Check a number; `words` follow "must be"."""

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
Seed = Annotated[int, _range("from 0 to 4294967295", lambda value: 0 <= value < 2**32)]
Positive = Annotated[float, _range("above 0", lambda value: value > 0)]
AtLeastZero = Annotated[float, _range("at least 0", lambda value: value >= 0)]
Share = Annotated[float, _range("from 0 to 1", lambda value: 0 <= value <= 1)]
Side = Annotated[float, _range("above 0 and at most 1", lambda value: 0 < value <= 1)]
BelowOne = Annotated[float, _range("at least 0 and below 1", lambda value: 0 <= value < 1)]
Splits = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]


def _or_auto(words: str, holds: Callable[[Any], bool]) -> BeforeValidator:
    """Check a number that may be "auto"; `words` follow "must be"."""

    def check(value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != AUTO and not (number and math.isfinite(value) and holds(value)):
            raise PydanticCustomError("range", f"must be {words}, or auto")
        return value

    return BeforeValidator(check)


def _team(value: object) -> object:
    if value == AUTO:
        return value
    ends = list(value) if isinstance(value, list | tuple) else [value, value]
    counts = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
    if not len(ends) == len(counts) == 2 or not 1 <= counts[0] <= counts[1] <= MOST:
        raise PydanticCustomError("team", "must be a number from 1 on, a range of two, such as [1, 4], or auto")
    return tuple(counts) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, config=STRICT)
class Flow:
    """Optical flow from each frame to the next, stored with the frames."""

    algorithm: Literal["tvl1", "dis"]
    bound: Positive = 20.0  # pixels: clipped to +-bound, then 8 bits, 128 is no motion
    compensated: bool = False  # also stored without the camera's motion (TSN section 3.1: warped flow)


@dataclass(frozen=True, config=STRICT)
class Decode:
    """Settings for decoding videos to frames."""

    short_side: Pixels  # pixels of the stored shorter side; the longer side keeps the aspect, rounded to even
    quality: Quality  # of JPEG
    decoder: Literal["ffmpeg", "decord"]
    videos_per_shard: Count  # one shard is one task and the unit of resuming
    max_failed: Share  # share of videos that may fail before the stage fails
    flow: Flow | None = None


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """One data set: the source of its videos and their decoding."""

    file: Text  # pipeline/datasets/<file>.py
    source: Text  # "generated", a URL, or a local folder or archive; relative to the project's root
    lists: Text | None  # folder of the official list files, if not with the videos
    options: dict[str, Any]  # options of this data set only, e.g. shapes' size
    decode: Decode
    # Classes are forward and backward, and each video has both: see pipeline/direction.py.
    direction: bool = False


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Augmentation of a training clip; all frames of a clip get the same."""

    crop: Literal["random", "corner", "corners", "resized", "center", "padded"]  # see augmentation.draw()
    # random, corner, corners: crop sides as shares of the short side
    scales: Annotated[tuple[Side, ...], Field(min_length=1)] = (1.0,)
    max_distort: Whole = 1  # corner: largest distance of width's and height's scale, in steps
    flip: bool = False  # flip left-right with probability half, and labels too: see loading.TrainClips
    squash: bool = False  # crop from the frame squeezed to the square, its aspect lost
    color: Literal["none", "jitter", "space"] = "none"  # jitter: along the colors' axes; space: also in color space
    pad: BelowOne = 0.0  # padded: black pixels at each edge, as a share of the short side
    mixup: AtLeastZero = 0.0  # beta distribution's parameter; 0 is off


@dataclass(frozen=True, config=STRICT)
class Group:
    """A parameter group; the first of a parameter's kind sets its multipliers."""

    kind: Literal["head.weight", "head.bias", "norm", "bias", "attention", "weight"]
    lr: AtLeastZero = 1.0
    decay: AtLeastZero = 1.0


def planes(input: str = "rgb", stack: int = 5) -> int:
    """Return C of a clip: RGB's three, two for each flow, or the sum of both."""
    return {"rgb": 3, "rgb+flow": 3 + 2 * stack}.get(input, 2 * stack)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Settings for training."""

    epochs: Count
    batch: Count  # clips per step over all workers, whose number does not change it
    micro_batch: Count  # clips per forward pass, the batch of batch norm; a worker runs one or more of a step's
    frames: Count  # T
    sampling: Literal["segments", "dense", "multirate"]
    size: Pixels  # pixels of the square input
    augment: Augment
    lr: Positive
    momentum: BelowOne
    weight_decay: AtLeastZero
    # parts of a split for training
    train: Annotated[tuple[Literal["train", "val"], ...], Field(min_length=1), AfterValidator(_distinct)] = ("train",)
    # videos for a score after each epoch, never of the test set: the split's part val, or a share of those to train on
    validate: Literal["val"] | BelowOne | None = None
    checkpoint: Literal["last", "best"] = "last"  # epoch to test; best: by the validation score
    patience: Count | None = None  # epochs without a better validation score before training stops
    input: Literal["rgb", "flow", "warped", "rgb+flow"] = "rgb"  # input of the net; flow is the data set's decode.flow
    stack: Count = 5  # flows stacked at each frame of a clip, two planes each
    loss: Literal["softmax", "sigmoid"] = "softmax"  # sigmoid: classes are independent, for multi-label videos
    stride: Count = 1  # frames from one to the next, where the sampling is not segments
    nesterov: bool = False
    dampening: BelowOne = 0.0  # of momentum: a steady gradient's step is lr * (1 - dampening) / (1 - momentum)
    steps: Annotated[tuple[Count, ...], AfterValidator(_distinct)] = ()  # epochs at which lr is multiplied by `factor`
    factor: Positive = 0.1
    warmup_epochs: Whole = 0  # lr rises linearly, step by step
    dropout: BelowOne = 0.0
    head_std: Positive | None = 0.001  # deviation of the classifier's initial weights, biases 0; null: torch's default
    frozen: tuple[str, ...] = ()  # stages with frozen weights, e.g. [stem, res2]
    # Their batch norm's mode. train: batch statistics, and running ones are updated, as where a learning rate of 0
    # freezes a stage (Hara's code); eval: as loaded.
    frozen_norms: Literal["train", "eval"] = "train"
    partial_bn: bool = False  # every batch norm but the first in eval mode (TSN section 3.3)
    groups: tuple[Group, ...] = ()
    clip_grad: Positive | None = None  # largest norm of the gradient
    label_smoothing: BelowOne = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that supports it, otherwise fp32
    threads: Count = 1  # CPU threads of a process that trains or scores; another number changes rounding

    @property
    def planes(self) -> int:
        return planes(self.input, self.stack)


def no_recipe(protocol: "Protocol") -> Recipe:
    """Return a recipe for an untrained row: the protocol's RGB clips, in fp32."""
    frames, augment = protocol.frames or 1, Augment("center")
    return Recipe(1, 1, 1, frames, "segments", protocol.size, augment, 1.0, 0.0, 0.0, precision="fp32")


# Of a clip's frames: as they are, from last to first, in an order drawn by the video's name, or one frame repeated.
Order = Literal["forward", "reversed", "shuffled", "static"]


@dataclass(frozen=True, config=STRICT)
class Protocol:
    """Settings for testing: clips x crops views per video, and mean of scores."""

    clips: Count
    crops: Literal["center", "whole", "three", "ten", "squash"]
    sampling: Literal["segments", "random_segments", "dense", "uniform_clips", "parts", "windows", "multirate"]
    size: Pixels  # pixels of the square input
    # softmax: mean of probabilities; logits: softmax of the mean score; sigmoid: independent classes, for mAP
    average: Literal["softmax", "logits", "sigmoid"]
    batch: Count  # views per forward pass; fixed, so that scores do not depend on the number of workers
    stride: Count = 1
    frames: Count | None = None  # T of a clip, where it is not the recipe's, for nets that take any
    order: Order = "forward"
    # Orders in which a row is tested too, by the same nets: the difference says whether they use time.
    probes: Annotated[tuple[Order, ...], AfterValidator(_distinct)] = ()


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """A row of a table: one system on one data set, over splits x seeds."""

    dataset: str
    backbone: str  # models/backbones/<backbone>.py
    variant: str  # a variant of the backbone, e.g. "50" or "tiny"
    attention: str  # models/attention/<attention>.py
    recipe: str | None  # null: not trained here; the file of weights is tested as it is, with its classifier
    protocol: str
    splits: Splits = (1,)
    seeds: Seeds = (0, 1, 2)
    knobs: dict[str, Any] = field(default_factory=dict)  # arguments of the attention's attach()
    weights: str | None = None  # a name of conf/weights/, a path, or URL#sha256=<hex>; null trains from scratch


@dataclass(frozen=True, config=STRICT)
class Fusion:
    """A row from other rows' predictions: late fusion, a weighted mean of scores."""

    rows: Annotated[dict[str, Positive], Field(min_length=1)]  # row -> weight
    outside: dict[str, Positive] = field(default_factory=dict)  # Parquet file with the columns of predictions -> weight


@dataclass(frozen=True, config=STRICT)
class Trajectories:
    """Improved dense trajectories on a data set, without a net; scores can be fused."""

    dataset: str
    splits: Splits
    flow: Literal["farneback", "dis"] = "farneback"
    scales: Count = 8  # at most, 1 / sqrt(2) apart
    gaussians: Count = 256
    samples: Count = 256_000  # descriptors for learning a codebook
    seed: Seed = 0


@dataclass(frozen=True, config=STRICT)
class Subset:
    """Part of a data set: numbers of classes and of videos per class, chosen by hash."""

    classes: Count
    train: Whole
    test: Whole


@dataclass(frozen=True, config=STRICT)
class Tier:
    """Size of a suite: full as in its paper, or mini."""

    name: Literal["full", "mini"] = "full"
    subset: Subset | None = None  # of every data set; null is all of it
    # Values that suites refer to: seeds of every row, splits of rows that are means over splits, for each backbone its
    # variant and weights, and for a position in a net the side of its maps (ISTPA's knob).
    seeds: Seeds = (0,)
    splits: Splits = (1,)
    variant: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str | None] = field(default_factory=dict)
    positions: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Table:
    """Rows of a table; with a base, an ablation: each row's difference from the base."""

    title: str
    rows: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
    base: str | None = None
    check: bool = False  # of one system with other seeds than the base: p is shown, and no verdict


@dataclass(frozen=True, config=STRICT)
class Cluster:
    """The machines, never a stage's params, because they change no byte of a result.

    tests/train/test_resources.py gives the reasons.
    """

    address: Text = "local"  # "local" starts Ray here; RAY_ADDRESS overrides
    # Data-parallel training workers of one run; a range adapts to the free machines. auto: the GPUs, shared by the runs
    # of a row; 1 without GPUs.
    workers: Annotated[int | tuple[int, int] | Literal["auto"], BeforeValidator(_team)] = 1
    cpus_per_worker: Count = 1  # reserved; the recipe sets the threads
    # auto: 1, or 0 if the cluster has no GPU
    gpus_per_worker: Annotated[float | Literal["auto"], _or_auto("at least 0", lambda value: value >= 0)] = 0.0
    # Processes that load clips, for each training worker. auto: the cores of a worker's share of a node, less
    # cpus_per_worker, and at most 8; 0 without GPUs.
    loader_workers: Annotated[int | Literal["auto"], _or_auto("from 0 to 1024", lambda value: 0 <= value <= 1024)] = 0
    max_failures: Whole = 3  # restarts of a training run or task whose process died
    storage: Text = "data/work"  # training state that must survive a crash; on a cluster a folder that all nodes see

    @property
    def team(self) -> tuple[int, int]:
        """Smallest and largest number of training workers of one run; 1 before `auto` is resolved."""
        if isinstance(self.workers, str):
            return 1, 1
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

    def recipe(self, experiment: Experiment) -> Recipe:
        """Return a row's recipe, or no_recipe() for an untrained row."""
        if experiment.recipe is None:
            return no_recipe(self.protocols[experiment.protocol])
        return self.recipes[experiment.recipe]
