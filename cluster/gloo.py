"""gloo's network interface for training workers on CPUs: Ray's."""

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend


class Gloo(TorchConfig):
    """Ray's TorchConfig for gloo, with the interface of the node's address.

    By default gloo listens at the address of the host's name, often the loopback (on Debian by /etc/hosts). Other nodes
    can't reach that: they end with "Connection refused", or wait.
    """

    def __init__(self) -> None:
        super().__init__(backend="gloo")

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_choose)
        super().on_start(worker_group, backend_config)


def _choose() -> None:
    if name := interface(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface(address: str) -> str | None:
    """Return the network interface of this machine with an address, or None."""
    names = (
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(entry.address == address for entry in addresses)
    )
    return next(names, None)
