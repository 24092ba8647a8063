"""Label smoothing and the strength of an augmentation, tuned while a small convolutional network learns digits.

The training images are clean.  Those to be read later, of which 300 are at hand for validation, have noise.  How much
noise the training images need is found by the hypergradient.  The learning rate is fixed, so that nothing else makes a
difference.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import oho

STEPS, BATCH, NOISE = 100, 50, 0.4

torch.manual_seed(0)
torch.set_num_threads(1)  # the network is too small for more
images, digits = load_digits(return_X_y=True)
images, digits = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(digits)
train, held, test = torch.randperm(len(images)).split([700, 300, 797])
noisy = images + NOISE * torch.randn_like(images)


def trained(tune):
    """Trains a network while what `tune` names of its loss is tuned; returns it and its optimizer."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 2 * 2, 10),
    )  # fmt: skip
    loss = oho.LossHyper(label_smoothing=0.3, noise=0.0, tune=tune, bounds={"noise": (0.0, 1.0)}, rate=0.02)
    optimizer = oho.OHO(model.parameters(), oho.Momentum(lr=0.1, momentum=0.9, tune=()), loss=loss)
    for _ in range(STEPS):
        batch = train[torch.randint(len(train), (BATCH,))]
        drawn = torch.randn(BATCH, 1, 8, 8)
        optimizer.step(
            lambda h, batch=batch, drawn=drawn: oho.losses.cross_entropy(
                model(images[batch] + h["noise"] * drawn), digits[batch], label_smoothing=h["label_smoothing"]
            ),
            lambda: oho.losses.cross_entropy(model(noisy[held]), digits[held]),
        )
    return model, optimizer


for tune in ((), ("label_smoothing", "noise")):
    model, optimizer = trained(tune)
    outputs = model(noisy[test])
    accuracy = (outputs.argmax(-1) == digits[test]).float().mean().item()
    loss = oho.losses.cross_entropy(outputs, digits[test]).item()
    smoothing, noise = float(optimizer.hyper["label_smoothing"]), float(optimizer.hyper["noise"])
    print(f"tuned {' and '.join(tune) or 'nothing'}: test loss {loss:.3f}, accuracy {accuracy:.3f}")
    print(f"  label smoothing {smoothing:.3f}, noise {noise:.3f}")
