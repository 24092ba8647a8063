"""One's own module under AdamW: learning rate, weight decay and beta1 tuned in two sets; saved halfway and resumed."""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

import oho

EPOCHS = 12


class GatedNetwork(nn.Module):
    """Two convolutions, the second behind a learned gate: whatever PyTorch can differentiate twice will do."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, kernel_size=3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, kernel_size=3, padding=1)
        self.gate = nn.Parameter(torch.zeros(8, 1, 1))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8 * 4 * 4, 10)

    def forward(self, images):
        """(B, 1, 8, 8) -> (B, 10)."""
        hidden = functional.silu(self.first(images))
        hidden = hidden + torch.sigmoid(self.gate) * functional.silu(self.second(hidden))
        return self.head(self.dropout(hidden.flatten(1)))


def set_of(name):
    """The parameter's set: the output layer has hyperparameters of its own, the rest shares one value of each."""
    return "head" if name.startswith("head") else "body"


def build():
    """A network and its optimizer; whoever resumes builds them with the same arguments."""
    model = GatedNetwork()
    rule = oho.AdamW(lr=1e-3, weight_decay=1e-2, beta1=0.9, tune=("lr", "weight_decay", "beta1"))
    return model, oho.OHO(model.named_parameters(), rule, sets=set_of)


def loss_on(model, batch, *, training=False):
    """Mean cross entropy on a pair of images and targets, with dropout only in training."""
    model.train(training)
    images, targets = batch
    return functional.cross_entropy(model(images), targets)


def train_on(model, optimizer, batch, validation):
    """One step."""
    optimizer.step(lambda: loss_on(model, batch, training=True), lambda: loss_on(model, validation))


def report(epoch, model, optimizer, validation):
    """Prints the validation loss and the tuned values, [body, head]: sets come in the order of the parameters."""
    tuned = {name: [round(value, 5) for value in optimizer.hyper[name].tolist()] for name in optimizer.rule.tune}
    print(f"epoch {epoch:2}: validation loss {loss_on(model, validation).item():.4f}, {tuned}")


torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(digits))
train, validation, test = random_split(data, [1000, 397, 400])
loader, validation, test = DataLoader(train, batch_size=50, shuffle=True), validation[:], test[:]
model, optimizer = build()

with tempfile.TemporaryDirectory() as folder:
    checkpoint = Path(folder) / "checkpoint.pt"
    for epoch in range(1, EPOCHS + 1):
        for batch in loader:
            train_on(model, optimizer, batch, validation)
        if epoch % 3 == 0:
            report(epoch, model, optimizer, validation)
        if epoch == EPOCHS // 2:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
            model, optimizer = build()  # as after a crash: everything is new
            saved = torch.load(checkpoint)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            print(f"resumed at step {optimizer.steps}")
            report(epoch, model, optimizer, validation)

print(f"test loss {loss_on(model, test).item():.4f}")
