"""Results folders of runs that nobody has made: their numbers are chosen, so that what is drawn of them is known."""

from bench.records import Manifest, Outcome, RunWriter, Status, write_manifest
from reports.tables import read_tables

ENVIRONMENT = {"python": "3.11", "device_name": "test", "finished": "2026-01-02T03:04:05+00:00", "commit": "abc"}


FAMILIES = {
    "online": ("oho-global", "oho-layerwise", "oho-full", "oho-default", "oho-published"),
    "search": ("random-search", "bayesian-search"), "population": ("population",), "transplant": ("transplant",),
}  # fmt: skip
LABELS = {
    "oho-global": "Global OHO", "oho-layerwise": "Layer-wise OHO", "oho-full": "Full OHO", "oho-default": "Default OHO",
    "oho-published": "Published OHO", "random-search": "Random search", "bayesian-search": "Bayesian optimization",
}  # fmt: skip


def part_of(name):
    """A method as specs have it."""
    family = next((family for family, names in FAMILIES.items() if name in names), "training")
    return {"name": name, "family": family, "label": LABELS.get(name, name.title())}


def spec_of(name, seed, over=None, task="digits-mlp"):
    method = part_of(name)
    if over:
        method |= {"over": part_of(over), "label": f"{method['label']}: {part_of(over)['label']}"}
    budget = {"unit": "seconds", "amount": 2.0}
    return {"task": {"name": task}, "method": method, "space": {"name": "fair"}, "budget": budget, "seed": seed,
            "device": "cpu"}  # fmt: skip


def moment(step, loss, trial):
    return {
        "space": "fair", "used": step / 100, "step": step, "epoch": step / 10, "trial": trial,
        "counted_seconds": step / 100, "wall_seconds": step / 90, "validation_loss": loss, "test_loss": loss,
        "test_error": 0.1,
    }  # fmt: skip


def evaluation(step, loss, *, trial=0):
    return {
        "kind": "evaluation", **moment(step, loss, trial), "train_loss": loss, "incumbent_validation_loss": loss,
        "incumbent_test_loss": loss, "incumbent_test_error": 0.1, "hyper": {"lr": [0.1]}, "scalars": {},
    }  # fmt: skip


def incumbent(step, loss, *, trial=0):
    return {"kind": "incumbent", **moment(step, loss, trial)}


def write_run(root, spec, records, status=Status.BUDGET_REACHED, **changes):
    writer = RunWriter(root, spec)
    for record in records:
        writer.append(record)
    values = {
        "status": status, "message": "Traceback\nValueError: broken" if status is Status.FAILED else "", "steps": 100,
        "trials": 0, "counted_seconds": 2.0, "wall_seconds": 2.5, "accounts": {"train": 2.0, "hypergradient": 0.0,
        "selection": 0.0, "search": 0.0, "setup": 0.5, "evaluation": 0.0, "tracking": 0.0, "runner": 0.0},
        "final": records[-1] if records else {}, "environment": ENVIRONMENT,
    }  # fmt: skip
    values["disturbed_because"] = changes.get("invalid_because", ())
    writer.close(Outcome(**{**values, **changes}))
    return writer.id


def write_folder(root, losses, figures=("distribution", "performance", "anytime"), **changes):
    """`losses`: (method, over) -> for each seed the incumbent test loss at steps 100, 200, ..."""
    ids = []
    for (name, over), seeds in losses.items():
        for seed, values in enumerate(seeds):
            records = [
                make(100 * (i + 1), loss, trial=i if over else 0)
                for i, loss in enumerate(values)
                for make in (incumbent, evaluation)
            ]
            ids.append(write_run(root, spec_of(name, seed, over), records, **changes))
    write_manifest(root, Manifest("both", tuple(figures), {}, tuple(ids)))
    return ids


LOSSES = {
    ("fixed", None): [[0.9, 0.5], [0.8, 0.3], [0.7, 0.4]],
    ("oho-global", None): [[0.3, 0.20], [0.2, 0.10], [0.4, 0.15]],
    ("random-search", "fixed"): [[0.9, 0.15, 0.1], [0.9, 0.5, 0.15], [0.9, 0.8, 0.7]],
    ("bayesian-search", "adam"): [[0.9, 0.8], [0.9, 0.8], [0.5, 0.1]],
}


def write_oho(root, figure, runs, task="digits-mlp"):
    """`runs`: (method, options, seed, evaluations), an evaluation being (step, loss, learning rates, norms)."""
    ids = []
    for number, (name, options, seed, evaluations) in enumerate(runs):
        spec = spec_of(name, seed, task=task)
        spec["method"] |= {"label": f"{name} {options}", **options}
        records = []
        for step, loss, rates, norms in evaluations:
            scalars = {f"influence_norm_{key}": norm for key, norm in zip(("lr", "weight_decay"), norms, strict=False)}
            records.append({**evaluation(step, loss), "hyper": {"lr": rates, "weight_decay": rates}, "scalars": scalars})
        ids.append(write_run(root, spec, records, counted_seconds=1.0 + number))
    write_manifest(root, Manifest(figure, (figure,), {}, tuple(ids)))
    return read_tables(root)


def write_curves(root, figure, runs):
    """`runs`: (method, options, seed, shock, evaluations, scalars), an evaluation being (step, loss, learning rate)."""
    ids = []
    for name, options, seed, shock, points, scalars in runs:
        spec = spec_of(name, seed)
        spec["method"] |= {"label": f"{name} {options}".replace(" {}", ""), **options}
        if shock:
            spec["shock"] = {"label": f"lr set to {shock['set']['lr']:g} at epoch {shock['epoch']:g}", "events": [shock]}
        records = [incumbent(points[-1][0], points[-1][1])]
        for step, loss, rate in points:
            hyper = {"lr": [rate], "weight_decay": [1e-4]}
            records.append({**evaluation(step, loss), "hyper": hyper, "scalars": scalars})
        ids.append(write_run(root, spec, records))
    write_manifest(root, Manifest(figure, (figure,), {}, tuple(ids)))
    return read_tables(root)


def shocked_runs(kicked=3.0):
    """One evaluation an epoch of ten steps; OHO is back within an epoch, fixed is not."""
    twin = [(step, 1.0, 0.1) for step in range(0, 100, 10)]
    hit = {
        "fixed": [(s, 1.0 if s <= 30 else kicked, 0.1) for s in range(0, 100, 10)],
        "oho-global": [(s, kicked if s == 40 else 1.0, 0.1) for s in range(0, 100, 10)],
    }
    event = {"epoch": 3.0, "set": {"lr": 0.2}}
    return [
        (name, {}, seed, shock, hit[name] if shock else twin, {})
        for name in hit for seed in (0, 1, 2) for shock in (None, event)
    ]  # fmt: skip


def errors(lr, decay, wrong, **parts):
    """Scalars of a run beside an exact twin; `parts` are the bias and the noise of the learning rate's hypergradients."""
    found = {"error_lr": lr, "error_weight_decay": decay, "wrong_sign_lr": wrong, "wrong_sign_weight_decay": wrong}
    return {f"hypergradient_{name}": value for name, value in found.items()} | {
        f"hypergradient_{part}_lr": value for part, value in parts.items()
    }
