"""The module of lightning_plain.py with OHO in it, by Lightning's manual optimization: each batch brings a held-out one."""

import tempfile

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

import oho

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
train, validation, test = random_split(data, [1000, 397, 400])
loaders = {
    "train": DataLoader(train, batch_size=50, shuffle=True),
    "held out": DataLoader(validation, batch_size=397),
}


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))

    def loss_on(self, batch):
        inputs, targets = batch
        return functional.cross_entropy(self.model(inputs), targets)

    def configure_optimizers(self):
        return oho.OHO(self.parameters(), oho.SGD(lr=1e-3))

    def training_step(self, batches, index):
        return self.optimizers().step(
            lambda: self.loss_on(batches["train"]), valid_closure=lambda: self.loss_on(batches["held out"])
        )


module, monitor = Digits(), LearningRateMonitor("step")
with tempfile.TemporaryDirectory() as folder:
    trainer = lightning.Trainer(
        max_epochs=20, accelerator="cpu", callbacks=[monitor], logger=CSVLogger(folder), enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, CombinedLoader(loaders, "max_size_cycle"))  # the shorter one starts again when it ends

print(f"learning rate {monitor.lrs['lr-OHO/global'][-1]:.4f}, after {trainer.global_step} steps")
print(f"test loss {module.loss_on(test[:]).item():.3f}")
