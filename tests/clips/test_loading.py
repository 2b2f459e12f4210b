"""Clips: pixels against Pillow, order for any number of workers, batches against the formula."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from pipeline.clips import loading, views
from pipeline.clips.augmentation import Box
from pipeline.config.schema import Augment, Protocol, Recipe
from pipeline.errors import UserError
from tests.support.recipes import recipe

WIDTH, HEIGHT, COUNT = 116, 90, 12
RECIPE = recipe(Augment("corner", scales=(1.0, 0.75), flip=True), frames=4, size=48, lr=0.1, weight_decay=0.0)


def load(store: "Store", video: str, indices: Sequence[int], box: Box, flip: bool, size: int) -> np.ndarray:
    """Return one clip (T, size, size, 3): load_views() of a single view."""
    return loading.load_views(store, [(video, loading.View(tuple(indices), box, flip))], size)[0]


@dataclass(frozen=True)
class Entry:
    frames: int = COUNT
    width: int = WIDTH
    height: int = HEIGHT


def picture(number: int) -> np.ndarray:
    """Return a smooth picture for each number, so that a wrong frame, shift or mirror image shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [np.sin(x / (7 + number) + y / 19), np.cos(y / (5 + number)), np.sin((x - y) / 13 + number)]
    return np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


class Store:
    """A frame store in memory that records the requested frames."""

    def __init__(self, names: str = "abcdefghij") -> None:
        self.videos = {name: Entry() for name in names}
        self.bytes = {n: simplejpeg.encode_jpeg(picture(n), 90, "RGB", "420") for n in range(COUNT)}
        self.asked: list[list[int]] = []

    def entry(self, video: str) -> Entry:
        return self.videos[video]

    def jpegs(self, video: str, indices: list[int], column: str = "jpeg") -> list[np.ndarray]:
        self.asked.append(list(indices))
        return [np.frombuffer(self.bytes[index], np.uint8) for index in indices]


@pytest.fixture
def store() -> Store:
    return Store()


def by_pillow(store: Store, index: int, box: Box, size: int) -> np.ndarray:
    frame = Image.open(io.BytesIO(store.bytes[index])).convert("RGB")
    cut = frame.crop((box.x, box.y, box.x + box.w, box.y + box.h))
    return np.asarray(cut if cut.size == (size, size) else cut.resize((size, size), Image.Resampling.BILINEAR))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def test_a_crop_at_the_stored_scale_is_pillows_bit_for_bit(store):
    box = Box(17, 5, 64, 64)
    clip = load(store, "a", (0, 3, 11), box, False, 64)
    assert clip.dtype == np.uint8
    assert clip.shape == (3, 64, 64, 3)
    assert all(np.array_equal(frame, by_pillow(store, n, box, 64)) for n, frame in zip((0, 3, 11), clip, strict=True))


def gradient(picture: np.ndarray) -> float:
    return float(np.abs(np.diff(picture.astype(float), axis=1)).mean())


@pytest.mark.parametrize(("height", "width", "size"), [(90, 116, 48), (60, 60, 40), (80, 80, 72), (40, 50, 64)])
def test_crops_are_filtered_as_pil_filters_them(height, width, size):
    """Crops equal PIL's to 1 of 255; OpenCV's have up to a third more gradient."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR))
    both = loading.resized(np.stack([255 - noise, noise]), size, size)
    actual = both[1]
    assert np.abs(actual.astype(int) - expected).max() <= 1
    assert np.array_equal(loading.resized(noise[None], size, size)[0], actual)
    assert np.array_equal(loading.resized(np.stack([255 - noise, noise])[..., 0], size, size), both[..., 0])
    assert gradient(actual) == pytest.approx(gradient(expected), rel=0.01)


@pytest.mark.parametrize(
    ("box", "size", "most"),
    [
        (Box(3, 1, 80, 60), 96, 0.5),  # larger
        (Box(26, 0, 90, 90), 64, 0.1),  # smaller
        (Box(14, 2, 64, 64), 32, 1.5),  # half, decoded at half
        (Box(16, 0, 90, 80), 32, 1.5),  # decoded at half, then smaller
        (Box(16, 8, 80, 72), 16, 2.0),  # decoded at a quarter
    ],
)
def test_resized_crops_are_near_pillows(store, box, size, most):
    clip = load(store, "a", (2, 7), box, False, size)
    expected = np.stack([by_pillow(store, n, box, size) for n in (2, 7)])
    assert difference(clip, expected) < most
    assert difference(clip, expected[:, :, ::-1]) > 10 * most


def test_beyond_the_frame_a_crop_is_black(store):
    (clip,) = load(store, "a", (3,), Box(-4, HEIGHT - 60, 64, 64), False, 64)
    (frame,) = load(store, "a", (3,), Box(0, HEIGHT - 60, 60, 60), False, 60)
    assert np.array_equal(clip[:60, 4:], frame)
    assert not clip[60:].any() and not clip[:, :4].any()


def test_colors_are_changed_as_a_view_says(store):
    plain = load(store, "a", (1, 4), Box(9, 3, 70, 80), True, 64)
    color = ((0.5, 0.0, 0.0, 0.0), (0.0, 2.0, 0.0, -20.0), (0.0, 0.3, 0.7, 5.0))
    view = views.View((1, 4), Box(9, 3, 70, 80), True, color)
    (actual,) = loading.load_views(store, [("a", view)], 64)
    wanted = (plain @ np.array(color)[:, :3].T + np.array(color)[:, 3]).clip(0, 255)
    assert np.abs(actual - wanted).max() <= 0.51
    again = dataset(store, replace(RECIPE, augment=Augment(crop="center", color="space")))
    assert again.view(0, 0).color == again.view(0, 0).color != again.view(1, 0).color


def test_flip_mirrors_every_frame(store):
    plain, mirrored = (load(store, "a", (1, 4), Box(9, 3, 70, 80), flip, 64) for flip in (False, True))
    assert np.array_equal(mirrored, plain[:, :, ::-1])


def test_repeated_indices_are_fetched_once(store):
    clip = load(store, "a", (5, 2, 5, 5), Box(0, 0, 64, 64), False, 64)
    assert store.asked == [[2, 5]]
    assert np.array_equal(clip[0], clip[2])
    assert np.array_equal(clip[0], by_pillow(store, 5, Box(0, 0, 64, 64), 64))


@pytest.mark.parametrize("crops", ["center", "three", "ten"])
def test_views_together_are_the_views_alone(store, crops):
    protocol = Protocol(clips=2, crops=crops, sampling="segments", size=64, average="softmax", batch=4)
    wanted = [(name, view) for name in "ab" for view in views.views(protocol, name, store.videos[name], 4)]
    together = loading.load_views(store, wanted, 64)
    assert len(store.asked) == 4  # clips, whatever the crops
    for clip, (name, view) in zip(together, wanted, strict=True):
        assert np.array_equal(clip, load(store, name, view.indices, view.box, view.flip, 64))


def test_a_damaged_frame_is_named(store):
    store.bytes[3] = store.bytes[3][:500]
    with pytest.raises(UserError, match="a: frame 3 of the store is damaged"):
        load(store, "a", (2, 3), Box(0, 0, 64, 64), False, 64)


def test_draws_depend_on_all_four_and_on_nothing_else():
    keys = [(0, 0, "a", 0), (1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1), (0, 0, "0/a", 0)]
    drawn = [loading.rng(*key).integers(2**62) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [loading.rng(*key).integers(2**62) for key in keys]
    assert loading.seed_of(0, 1, 2, 3) == 4103091952723846079  # no machine, and no PYTHONHASHSEED, has another


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_workers_share_the_steps_of_one(world):
    alone = loading.steps(67, 20, 4, seed=3, epoch=2)
    assert [len(step) for step in alone] == [5, 5, 5]
    shared = [[step[rank::world] for step in loading.steps(67, 20, 4, seed=3, epoch=2)] for rank in range(world)]
    for n, step in enumerate(alone):
        assert sorted(micro for worker in shared for micro in worker[n]) == sorted(step)
    order = loading.epoch_order(67, 3, 2)
    assert [position for step in alone for micro in step for position in micro] == order[:60]
    assert sorted(order) == list(range(67))


def test_every_epoch_and_seed_has_an_order_of_its_own():
    orders = {tuple(loading.epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_fewer_clips_than_a_batch_is_a_users_error():
    with pytest.raises(UserError, match="19 clips to train on are fewer than a batch of 20"):
        loading.steps(19, 20, 4, 0, 0)


def dataset(store: Store, recipe: Recipe = RECIPE) -> loading.TrainClips:
    return loading.TrainClips(store, [(name, [n % 3]) for n, name in enumerate(store.videos)], recipe, 5, range(3))


def test_training_clips_do_not_depend_on_workers_or_order(store):
    data = dataset(store)
    micros = [
        [(epoch, n) for n in micro]
        for epoch in range(2)
        for step in loading.steps(len(data.items), RECIPE.batch, RECIPE.micro_batch, 5, epoch)
        for micro in step
    ]
    runs = [list(loading.read_ahead(data, micros, threads)) for threads in (0, 2, 5)]
    assert [len(run) for run in runs] == [8, 8, 8]
    for (one, labels), (other, same), (last, _), micro in zip(*runs, micros, strict=True):
        assert one.dtype == torch.uint8
        assert one.shape == (2, 4, 48, 48, 3)
        assert torch.equal(one, other) and torch.equal(one, last)
        assert labels.tolist() == same.tolist() == [n % 3 for _, n in micro]
        assert all(np.array_equal(clip, data[[key]][0][0]) for clip, key in zip(one.numpy(), micro, strict=True))


class Counted(loading.TrainClips):
    """Clips that count reads; those of position 3 are damaged."""

    reads = 0

    def __getitem__(self, keys: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        self.reads += 1
        if keys == [(0, 3)]:
            raise UserError("v3: frame 0 of the store is damaged")
        return super().__getitem__(keys)


def test_threads_read_a_few_micro_batches_ahead_and_stop_with_the_caller(store):
    clips = Counted(store, dataset(store).items, RECIPE, 5, range(3))
    batches = loading.read_ahead(clips, ([(epoch, 0)] for epoch in range(1000)), 2)
    next(batches)
    batches.close()
    assert 1 <= clips.reads <= 5  # two for each of two threads, and the caller's


def test_a_damaged_clip_of_a_thread_is_the_callers_error_in_its_place(store):
    clips = Counted(store, dataset(store).items, RECIPE, 5, range(3))
    batches = loading.read_ahead(clips, [[(0, n)] for n in range(5)], 2)
    for _ in range(3):
        next(batches)
    with pytest.raises(UserError, match="v3: frame 0"):
        next(batches)


def test_training_clips_change_with_the_epoch(store):
    data = dataset(store)
    assert all(data.view(0, n) != data.view(1, n) for n in range(len(data.items)))
    fixed = dataset(store, replace(RECIPE, sampling="dense", stride=3, augment=Augment(crop="center")))
    assert fixed.view(0, 0) == fixed.view(1, 0)  # twelve frames leave one start


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalise_is_the_formula_and_folds_without_a_copy(channels):
    batch = torch.randint(0, 256, (2, 3, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (120.0, 110.0, 100.0), (60.0, 50.0, 1.0)
    x = loading.normalise(batch, mean, std, channels)
    pixels = batch.double() if channels == "rgb" else batch.double()[..., [2, 1, 0]]
    expected = ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(0, 1, 4, 2, 3)
    assert x.shape == (2, 3, 3, 5, 7)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), expected, rtol=1e-6, atol=1e-5)
    folded = x.flatten(0, 1)
    assert folded.data_ptr() == x.data_ptr()
    assert folded.is_contiguous(memory_format=torch.channels_last)


def test_normalise_writes_into_its_output():
    batch = torch.full((1, 2, 4, 4, 3), 255, dtype=torch.uint8)
    out = torch.empty(batch.shape)
    x = loading.normalise(batch, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), out=out)
    assert x.data_ptr() == out.data_ptr()
    assert torch.allclose(x, torch.ones(()))


def test_mixup_mixes_clips_and_labels_alike():
    x = torch.eye(6).reshape(6, 1, 6)  # a clip of each label shows that label
    labels = torch.arange(6)
    mixed, wanted = loading.mixup(x, labels, 6, 0.4, seed=1)
    torch.testing.assert_close(mixed[:, 0], wanted)
    torch.testing.assert_close(wanted.sum(1), torch.ones(6))
    weights = wanted.diagonal()[wanted.diagonal() < 1]
    assert len(weights) > 0
    assert len(set(weights.tolist())) == 1
    assert torch.equal(loading.mixup(x, labels, 6, 0.4, seed=1)[0], mixed)
    assert not torch.equal(loading.mixup(x, labels, 6, 0.4, seed=2)[0], mixed)
