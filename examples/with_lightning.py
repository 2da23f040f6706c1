"""SAQ in a LightningModule: manual optimization, one line a step; then a bundle, exported and proved.

pip install lightning
python examples/with_lightning.py          # half a minute on one core; digits come with scikit-learn
"""

import argparse
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import saq_qat as sq


class Digits(L.LightningModule):
    """Trains a network of ``sq.quantize`` with sharpness-aware steps."""

    def __init__(self, net: sq.QuantizedNetwork, rate: float, rho: float) -> None:
        super().__init__()
        self.automatic_optimization = False  # the step does backward and optimizer.step itself
        self.net, self.rate, self.rho = net, rate, rho
        self.saved: dict[str, Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=self.rate, momentum=0.9)

    def on_fit_start(self) -> None:
        """The network is on its device now, and the optimizer made."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        self.step = sq.SAQ(self.net, optimizer, rho=self.rho)
        if self.saved:
            self.step.load_state_dict(self.saved)

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        images, labels = batch
        self.log("loss", self.step(lambda: F.cross_entropy(self.net(images), labels)))

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        images, labels = batch
        self.log("val_top1", 100 * (self.net(images).argmax(1) == labels).float().mean())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["saq"] = self.step.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint["saq"]


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Training and validation batches: float32 (N, 1, 8, 8) of pixels 0 to 1, and labels."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(found.target)
    train, val = TensorDataset(images[:1437], labels[:1437]), TensorDataset(images[1437:], labels[1437:])
    return DataLoader(train, batch_size=64, shuffle=True, drop_last=True), DataLoader(val, batch_size=180)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip  # one value a line is a page


def trainer(epochs: int) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip  # one value a line is a page


def main(folder: Path) -> None:
    L.seed_everything(0, verbose=False)
    train, val = loaders()
    example = next(iter(train))[0]
    net = sq.quantize(network(), example, weight_bits=4)
    for epochs, rate in ((6, 0.1), (2, 0.01)):
        module = Digits(net, rate, rho=0.3)
        trainer(epochs).fit(module, train)
    net = sq.fold(module.net)  # biases as the integers will have them, learned in an epoch
    module = Digits(net, rate=0.002, rho=0.3)
    fitted = trainer(1)
    fitted.fit(module, train, val)
    print(f"top-1 {fitted.callback_metrics['val_top1'].item():.2f} %")
    bundle = sq.export(module.net, val, folder=folder)
    print(f"proved: {len(bundle.proof.comparisons)} comparisons; bundle {bundle.folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("digits-bundle"), help="where the bundle goes")
    main(parser.parse_args().folder)
