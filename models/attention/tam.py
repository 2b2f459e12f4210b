"""TAM: temporal adaptive module, a convolution over time with a kernel per clip.

Liu, Wang, Wu, Qian and Lu, "TAM: Temporal Adaptive Module for Video Recognition" (ICCV 2021), section 3, which TANet
uses. The input is X averaged over H and W. The local branch gives a weight for each frame and channel, V =
sigmoid(Conv1d(ReLU(Conv1d(.)))) with C, C/beta and C channels. The global branch gives a kernel for each channel,
Theta = softmax(W2 ReLU(W1 .)) with T, alpha*T and K values. V*X is convolved with Theta over time. It follows the first
convolution of each residual block, its norm and ReLU; K = 3, alpha = 2, beta = 4.

As in the authors' code (github.com/liu-zhy/temporal-adaptive-module), and the printed parameters:
- A norm follows the first layer of both branches. No layer has a bias.
- Before the first frame and after the last one are zeros.
Beyond both: blocks of two 3x3 convolutions take it as well, between the two.

The global branch's layers are as wide as the clip is long, so a net takes one T only.
"""

from torch import Tensor, nn

from models.backbone import Backbone, BehindConv2d, check_least, second_convolutions

# Shapes: N clips, T frames, C channels, K weights of a kernel, x (N*T, C, H, W).


class TemporalAdaptive(nn.Module):
    """Convolve each channel over time with the clip's kernel: (N*T, C, H, W)."""

    retimable = False

    def __init__(self, channels: int, frames: int, kernel: int = 3, alpha: int = 2, beta: int = 4) -> None:
        super().__init__()
        self.frames = frames
        hidden = max(1, channels // beta)
        self.kernel = nn.Sequential(
            nn.Linear(frames, alpha * frames, bias=False),
            nn.BatchNorm1d(alpha * frames),
            nn.ReLU(inplace=True),
            nn.Linear(alpha * frames, kernel, bias=False),
            nn.Softmax(1),
        )
        self.importance = nn.Sequential(
            nn.Conv1d(channels, hidden, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv1d(hidden, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._adapted(x, x.mean((2, 3)))

    def published(self, x: Tensor) -> Tensor:
        """Return the same with the authors' averages, which FLOP counters do not see."""
        return self._adapted(x, x.sum((2, 3)) / x[0, 0].numel())

    def _adapted(self, x: Tensor, means: Tensor) -> Tensor:
        """Return the output for x and its averages (N*T, C)."""
        means = means.unflatten(0, (-1, self.frames)).transpose(1, 2)  # (N, C, T)
        kernels = self.kernel(means.flatten(0, 1)).unflatten(0, means.shape[:2])  # (N, C, K)
        weighed = x.unflatten(0, (-1, self.frames)) * self.importance(means).transpose(1, 2)[..., None, None]
        kernels = kernels[:, None, ..., None, None]  # (N, 1, C, K, 1, 1)
        middle = kernels.shape[3] // 2
        out = weighed * kernels[:, :, :, middle]  # (N, T, C, H, W)
        for step in range(1, middle + 1):
            out[:, step:] += weighed[:, :-step] * kernels[:, :, :, middle - step]
            out[:, :-step] += weighed[:, step:] * kernels[:, :, :, middle + step]
        return out.flatten(0, 1)


def attach(net: Backbone, frames: int, *, kernel: int = 3, alpha: int = 2, beta: int = 4) -> Backbone:
    """Add TAM before the second convolution of every residual block.

    Raises:
        ValueError: The kernel is even or below 1, alpha or beta is below 1, the backbone takes volumes, or its blocks
            are not ResNet's.
    """
    check_least("tam", odd=True, kernel=kernel)
    check_least("tam", alpha=alpha, beta=beta)
    for _, block, conv in second_convolutions(net, "tam"):
        block.conv2 = BehindConv2d(conv, tam=TemporalAdaptive(conv.in_channels, frames, kernel, alpha, beta))
    return net
