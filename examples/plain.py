"""An ordinary PyTorch training loop: SGD on scikit-learn's digits, from a learning rate that is far too small."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
train, validation, test = random_split(data, [1000, 397, 400])
loader, validation, test = DataLoader(train, batch_size=50, shuffle=True), validation[:], test[:]
model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)


def loss_on(batch):
    """Mean cross entropy of the model on a pair of inputs and targets."""
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)


def train_on(batch):
    """One step."""
    optimizer.zero_grad()
    loss_on(batch).backward()
    optimizer.step()


for epoch in range(1, 51):
    for batch in loader:
        train_on(batch)
    if epoch % 10 == 0:
        rate = optimizer.param_groups[0]["lr"]
        print(f"epoch {epoch:2}: learning rate {rate:.4f}, validation loss {loss_on(validation).item():.3f}")

print(f"test loss {loss_on(test).item():.3f}")
