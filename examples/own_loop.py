"""A plain PyTorch loop on a network of your own: float training, SAQ at 4 bits, a proved bundle, predictions.

python examples/own_loop.py          # half a minute on one core; digits come with scikit-learn
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import saq_qat as sq
from saq_qat_runtime.session import Session

BATCH = 64


class Network(nn.Module):
    """Nothing here knows of saq-qat: whatever torch.fx can trace may stand in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.down_norm = nn.BatchNorm2d(32)
        self.block = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down_norm(self.down(self.stem(x))))
        x = F.relu(x + self.block(x))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def digits() -> tuple[Tensor, Tensor]:
    """1797 scans, float32 (N, 1, 8, 8) of pixels 0 to 1, and labels."""
    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(images))
    for index in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
        yield images[index], labels[index]


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of the answers that are right."""
    network.eval()
    answers: Tensor = network(images).argmax(1)
    return 100 * (answers == labels).float().mean().item()


def train_in_float(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network.train()
    for _ in range(epochs):
        for x, y in batches(images, labels):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()


def train_with_saq(
    net: sq.QuantizedNetwork, images: Tensor, labels: Tensor, epochs: int, rate: float, rho: float
) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(images) // BATCH))
    step = sq.SAQ(net, optimizer, rho=rho)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(net(x), y)

    net.train()
    for _ in range(epochs):
        for x, y in batches(images, labels):
            step(partial(loss, x, y))  # both passes, and the optimizer's step
            schedule.step()


def main(folder: Path) -> None:
    torch.manual_seed(0)
    images, labels = digits()
    train, val = (images[:1437], labels[:1437]), (images[1437:], labels[1437:])

    model = Network()
    train_in_float(model, *train, epochs=6)
    print(f"float       {accuracy(model, *val):.2f} %")

    net = sq.quantize(model, train[0][:256], weight_bits=4)
    print(f"calibrated  {accuracy(net, *val):.2f} %")

    train_with_saq(net, *train, epochs=4, rate=0.02, rho=0.3)
    print(f"saq         {accuracy(net, *val):.2f} %")

    net = sq.fold(net)  # biases as the integers will have them, learned in an epoch
    train_with_saq(net, *train, epochs=1, rate=0.002, rho=0.3)
    print(f"folded      {accuracy(net, *val):.2f} %, as integers {accuracy(sq.lower(net), *val):.2f} %")

    bundle = sq.export(net, val, folder=folder, classes=[str(digit) for digit in range(10)])
    sq.verify(bundle)
    print(f"proved      {len(bundle.proof.comparisons)} comparisons; bundle {bundle.folder}")

    with Session.load(bundle.folder) as session:  # numpy and ONNX Runtime alone
        answers = session(val[0][:8].numpy()).argmax(1)
    print(f"answers     {answers.tolist()}, labels {val[1][:8].tolist()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("digits-bundle"), help="where the bundle goes")
    main(parser.parse_args().folder)
