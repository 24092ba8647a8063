"""The loop of accelerate_plain.py with OHO in it: the optimizer is not prepared, but saved with the rest."""

import tempfile

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

import oho

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
train, validation, test = random_split(data, [1000, 397, 400])
accelerator = Accelerator(cpu=True)
loader = accelerator.prepare(DataLoader(train, batch_size=50, shuffle=True))
held_out = accelerator.prepare(DataLoader(validation, batch_size=397))
model = accelerator.prepare(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)))
optimizer = oho.OHO(model.parameters(), oho.SGD(lr=1e-3))
accelerator.register_for_checkpointing(optimizer)


def loss_on(batch):
    """Mean cross entropy of the model on a pair of inputs and targets."""
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)


def train_on(batch):
    """One step."""
    held = next(iter(held_out))
    optimizer.step(lambda: loss_on(batch), lambda: loss_on(held))


for _ in range(20):
    for batch in loader:
        train_on(batch)

with tempfile.TemporaryDirectory() as folder:
    accelerator.save_state(folder)
    accelerator.load_state(folder)

print(f"learning rate {optimizer.param_groups[0]['lr']:.4f}")
print(f"test loss {loss_on(test[:]).item():.3f}")
