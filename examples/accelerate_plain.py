"""A loop of Hugging Face Accelerate: SGD on scikit-learn's digits, from a learning rate that is far too small."""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
train, validation, test = random_split(data, [1000, 397, 400])
accelerator = Accelerator(cpu=True)
loader = accelerator.prepare(DataLoader(train, batch_size=50, shuffle=True))
model = accelerator.prepare(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)))
optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=1e-3))


def loss_on(batch):
    """Mean cross entropy of the model on a pair of inputs and targets."""
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)


def train_on(batch):
    """One step."""
    optimizer.zero_grad()
    accelerator.backward(loss_on(batch))
    optimizer.step()


for _ in range(20):
    for batch in loader:
        train_on(batch)

print(f"learning rate {optimizer.param_groups[0]['lr']:.4f}")
print(f"test loss {loss_on(test[:]).item():.3f}")
