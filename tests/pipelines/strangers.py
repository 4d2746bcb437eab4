"""A stranger's model: a plain ``nn.Module`` in a file of its own, with weights beside it."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers import models
from trainers.data.digits import Digits
from trainers.data.held_out import HeldOut
from trainers.data.resident import Resident

CODE = """
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = torch.nn.functional.gelu(self.convolution(2 * x - 1))
        return self.head(torch.nn.functional.avg_pool2d(x, 2).flatten(1))


def robust():
    net = Net()
    net.load_state_dict(torch.load(Path(__file__).with_name("stranger.pt"), weights_only=True))
    return net


def other():
    net = robust()
    with torch.no_grad():
        net.head.weight *= 1.25
    return net
"""


def write(folder: Path) -> None:
    """``stranger.py`` and its weights in ``folder``."""
    (folder / "stranger.py").write_text(CODE)
    torch.save(_trained(), folder / "stranger.pt")


@cache
def _trained() -> dict[str, Tensor]:
    scope: dict[str, type[nn.Module]] = {"__name__": "stranger"}
    exec(CODE, scope)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = scope["Net"]()
    data = Resident(Digits(), batch_size=64, validation=64)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for epoch in range(6):
        for batch in data.train(epoch):
            x = (batch.x + 0.1 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(epoch))).clamp(0, 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), batch.y).backward()
            optimizer.step()
    return net.state_dict()


def digits(limit: int) -> HeldOut:
    return HeldOut(Digits(), limit=limit, validation=128)


def saved(folder: Path) -> tuple[str, ...]:
    """The setting that names a network any process can build, below ``folder``."""
    models.save(_network(), folder / "saved")
    return (f"model.source={folder / 'saved'}",)


@cache
def _network() -> nn.Module:
    arguments = {"width": 8, "blocks": 1}
    net = models.create("holdfast_resnet", 10, (1, 8, 8), activation="gelu", arguments=arguments)
    data = Resident(Digits(), batch_size=64, validation=64)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for epoch in range(3):
        for batch in data.train(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch.x), batch.y).backward()
            optimizer.step()
    return net.eval()
