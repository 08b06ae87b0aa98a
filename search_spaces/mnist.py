"""MNIST within 20,000 parameters, 19 epochs, no fully connected layer: copy this file to state a task of your own."""

from nas import (
    Architecture,
    Candidate,
    Constraints,
    Conv,
    Head,
    Layer,
    MaxPool,
    Recipe,
    SearchSpace,
    Transition,
    Trial,
)

RECIPE = Recipe(epochs=19)
MAX_CELLS = 6
AFTER = ("nothing", "pool", "transition", "transition, pool", "pool, transition")


def sample(trial: Trial) -> Candidate:
    """A row of convolution cells, what comes after each, and a head."""
    cells = trial.suggest_int("cells", 4, MAX_CELLS)
    unpadded = trial.suggest_int("unpadded", 1, 2)  # the last cells, without padding
    layers: list[Layer] = []
    for i in range(1, MAX_CELLS + 1):
        kernels = trial.suggest_int(f"kernels{i}", 12, 40, step=4)
        kernel_size = trial.suggest_categorical(f"kernel_size{i}", (3, 5))
        dropout = trial.suggest_categorical(f"dropout{i}", (0.0, 0.05, 0.1))
        after = trial.suggest_categorical(f"after{i}", AFTER)
        transition = Transition(out_channels=trial.suggest_int(f"transition{i}", 8, 16, step=4))
        if i <= cells:
            padding = 0 if i > cells - unpadded else kernel_size // 2
            layers.append(Conv(out_channels=kernels, kernel_size=kernel_size, padding=padding, dropout=dropout))
            parts: dict[str, Layer] = {"pool": MaxPool(), "transition": transition}
            layers += [parts[part] for part in after.split(", ") if part != "nothing"]
    head = Head(kind=trial.suggest_categorical("head", ("pool_conv", "conv_pool")))
    architecture = Architecture(input_shape=(1, 28, 28), num_classes=10, layers=tuple(layers), head=head)
    return Candidate(architecture=architecture, recipe=RECIPE)


def cell(kernels: int) -> Conv:
    """A cell of the network to beat; its dropout rate was not published."""
    return Conv(out_channels=kernels, bias=True, dropout=0.05)


SEED = Architecture(
    input_shape=(1, 28, 28),
    num_classes=10,
    layers=(
        *(cell(128), Transition(out_channels=8, padding=1), cell(16), MaxPool()),
        *(cell(16), cell(32), MaxPool(), Transition(out_channels=16, padding=1)),
        *(cell(16), cell(32)),
    ),
    head=Head(kind="conv_pool", padding=1),
)

SPACE = SearchSpace(
    sample=sample,
    # The limit on MACs is two fifths of what SEED costs: without it a search spends its time on wide first layers.
    constraints=Constraints(max_params=20_000, max_macs=2_000_000, max_epochs=19, forbid=("linear",)),
    dataset="mnist",
    recipe=RECIPE,
    target=0.994,
    baseline=SEED,
)
