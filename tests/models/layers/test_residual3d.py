"""Convolutions of the 3D networks equal torch's and keep the memory order."""

import pytest
import torch
from torch import Tensor, nn

from models import memory_format, video
from models.layers.residual3d import Conv3d

KERNELS = [
    ((1, 1, 1), (1, 1, 1), 1),
    ((1, 1, 1), (2, 2, 2), 1),
    ((1, 1, 1), (1, 2, 2), 1),
    ((1, 3, 3), (1, 2, 2), 1),
    ((1, 3, 3), (1, 1, 1), 4),
    ((3, 1, 1), (1, 1, 1), 1),
    ((3, 1, 1), (2, 1, 1), 2),
    ((3, 3, 3), (2, 2, 2), 1),
]


@pytest.mark.parametrize("kernel,stride,groups", KERNELS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_and_its_gradients_are_torchs(kernel, stride, groups, order, bias):
    torch.manual_seed(0)
    pads = tuple(size // 2 for size in kernel)
    conv = Conv3d(8, 12, kernel, stride, pads, groups=groups, bias=bias).double()
    x = torch.randn(2, 8, 5, 7, 6, dtype=torch.double).contiguous(memory_format=order)
    results = []
    for forward in (conv.forward, lambda x: nn.Conv3d.forward(conv, x)):
        given = x.detach().requires_grad_()
        out: Tensor = forward(given)
        results.append((out, *torch.autograd.grad(out.cos().sum(), [given, *conv.parameters()])))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs)
    assert not (kernel == (1, 1, 1) == stride) or results[0][0].is_contiguous(memory_format=order)


@pytest.mark.parametrize("backbone", ["resnet3d", "resnext3d", "slowonly"])
def test_channels_last_volumes_stay_so_to_the_end(backbone):
    """This holds on one thread too, where torch's 1x1x1 convolution loses the order."""
    net = video.build(backbone, "tiny", "none", 4, classes=5)
    copied = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.is_contiguous(memory_format=torch.channels_last_3d):
            copied.append(type(module).__name__)

    for module in net.backbone.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.register_forward_hook(note)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        net(torch.randn(2, 4, 64, 64, 3).permute(0, 1, 4, 2, 3))
    finally:
        torch.set_num_threads(threads)
    assert copied == []


@pytest.mark.parametrize("kernel,stride", [((3, 3, 3), (1, 1, 1)), ((1, 3, 3), (1, 2, 2)), ((3, 1, 1), (1, 1, 1))])
def test_weights_that_outweigh_their_maps_keep_torchs_order_and_the_maps_theirs(kernel, stride, monkeypatch):
    torch.manual_seed(0)
    pads = tuple(size // 2 for size in kernel)
    conv, plain = Conv3d(8, 12, kernel, stride, pads).double(), nn.Conv3d(8, 12, kernel, stride, pads).double()
    monkeypatch.setattr(memory_format, "LARGE", conv.weight.numel())
    memory_format.channels_last(nn.ModuleList([conv, plain]))
    assert conv.weight.is_contiguous() and not plain.weight.is_contiguous()
    results = []
    for frames in (1, 60):  # maps of fewer elements than the weight, and of more
        x = torch.randn(1, 8, frames, 2, 3, dtype=torch.double).contiguous(memory_format=torch.channels_last_3d)
        results.append(memory_format.outweighs(conv.weight, x))
        given = x.requires_grad_()
        ours, torchs = conv(given), nn.Conv3d.forward(conv, given)
        assert ours.is_contiguous(memory_format=torch.channels_last_3d)
        for mine, theirs in zip(
            *([out, *torch.autograd.grad(out.cos().sum(), [given, *conv.parameters()])] for out in (ours, torchs)),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs)
    assert results == [True, False]
