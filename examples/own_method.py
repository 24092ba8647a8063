"""A method of one's own: SGD whose learning rate falls along a cosine and starts again after every `epochs` epochs."""

from dataclasses import dataclass

from pydantic import Field
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from bench.protocol import Batches, Method, MethodEntry, Options, State, draw, remade, train


class RestartsOptions(Options):
    """A learning rate of null is drawn from the experiment's space, by the seed."""

    lr: float | None = Field(default=None, gt=0)
    epochs: int = Field(default=5, ge=1)


@dataclass(kw_only=True)
class RestartsState(State):
    optimizer: SGD
    schedule: CosineAnnealingWarmRestarts
    batches: Batches = remade()


class Restarts(Method):
    def __init__(self, options, space):
        self.options, self.space = options, space

    def init(self, task, seed):
        model, lr = task.model(seed), self.options.lr or draw(self.space, ["lr"], seed)["lr"]
        optimizer = SGD(model.parameters(), lr=lr)
        schedule = CosineAnnealingWarmRestarts(optimizer, self.options.epochs * task.steps_per_epoch)
        return RestartsState(
            task=task, seed=seed, model=model, hyper={"lr": lr}, optimizer=optimizer, schedule=schedule,
            batches=task.train_batches(seed),
        )  # fmt: skip

    def advance(self, state, *, steps, progress, ledger):
        def update():
            loss = state.task.training_loss(state.model, state.batches.at(state.step))
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()
            state.schedule.step()
            state.hyper["lr"] = state.schedule.get_last_lr()[0]
            return loss.detach()

        train(state, steps, ledger, update=update)


METHOD = MethodEntry(
    description="SGD with cosine restarts", label="Restarts", family="training", options=RestartsOptions, build=Restarts
)
