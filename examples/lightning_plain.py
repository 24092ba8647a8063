"""A Lightning module with SGD, on scikit-learn's digits, from a learning rate that is far too small."""

import tempfile

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
train, validation, test = random_split(data, [1000, 397, 400])
loader = DataLoader(train, batch_size=50, shuffle=True)


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))

    def loss_on(self, batch):
        inputs, targets = batch
        return functional.cross_entropy(self.model(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def training_step(self, batch, index):
        return self.loss_on(batch)


module, monitor = Digits(), LearningRateMonitor("step")
with tempfile.TemporaryDirectory() as folder:
    trainer = lightning.Trainer(
        max_epochs=20, accelerator="cpu", callbacks=[monitor], logger=CSVLogger(folder), enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, loader)

print(f"learning rate {monitor.lrs['lr-SGD'][-1]:.4f}, after {trainer.global_step} steps")
print(f"test loss {module.loss_on(test[:]).item():.3f}")
