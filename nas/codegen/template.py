"""The parts of an exported source file, as `string.Template` texts; `nas.codegen.source` fills them in."""

from string import Template

NETWORK = Template('''\
$docstring

$imports

INPUT_SHAPE = $input_shape
$classes
$mean
$std
PARAMS = $params
DENSE_LAYERS = $dense_layers  # fully connected, or a convolution that covers its whole input
$constants

class Net(nn.Sequential):
    """Normalised images (N, $shape) in, class scores (N, $num_classes) out."""

    def __init__(self) -> None:
        super().__init__(
            # output shape · receptive field · parameters
$layers
        )


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """Scale uint8 images (N, $shape) to 0..1 and normalise each channel."""
    return normalize(images.float() / 255)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Normalise each channel of images (N, $shape) with values 0..1."""
    mean = torch.tensor(MEAN, device=images.device).view(-1, 1, 1)
    std = torch.tensor(STD, device=images.device).view(-1, 1, 1)
    return (images - mean) / std


def count_dense_layers(net: Net) -> int:
    """Linear layers, and convolutions larger than 1×1 that cover their whole input."""
    count, x = 0, torch.zeros(1, *INPUT_SHAPE)
    for layer in net:
        if isinstance(layer, nn.Linear):
            count += 1
        elif isinstance(layer, nn.Conv2d):
            count += min(layer.kernel_size) >= max(2, *x.shape[2:])
        x = layer(x)
    return count


def load_checked(weights: Path) -> Net:
    """The network with its weights; ends the program if they are not what they say."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    net = Net().eval()
    try:
        net.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        sys.exit(f"{weights.name} cannot be loaded into this network: {error}")
    params = sum(parameter.numel() for parameter in net.parameters())
    if params != PARAMS:
        sys.exit(f"the network has {params:,} parameters, not {PARAMS:,}")
    if (dense := count_dense_layers(net)) != DENSE_LAYERS:
        sys.exit(f"the network has {dense} fully connected layers, not {DENSE_LAYERS}")
    classes = net(preprocess(torch.zeros(1, *INPUT_SHAPE, dtype=torch.uint8))).shape[1]
    if classes != len(CLASSES):
        sys.exit(f"the network predicts {classes} classes, not {len(CLASSES)}")
    print(f"weights loaded: {params:,} parameters, predicts {classes} classes")
    print(f"fully connected layers: {DENSE_LAYERS or 'none'}")
    return net
''')
CONSTANTS = Template("""\
TEST_CORRECT = $test_correct  # test images that weights.safetensors gets right

# the recipe
EPOCHS = $epochs
BATCH_SIZE = $batch_size
LEARNING_RATE = $learning_rate  # at its peak
WARMUP = $warmup  # part of all steps
MOMENTUM = $momentum
WEIGHT_DECAY = $weight_decay  # of kernels
EMA_DECAY = $ema_decay  # of the averaged weights, per step
ROTATION = $rotation  # degrees; this and the next three: at most, either way
SHIFT = $shift  # pixels
SCALE = $scale  # part of the size
SHEAR = $shear  # tangent of the angle
""")
TRAINING = Template('''

def load_images(folder: str, *, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 (N, $shape) and labels (N,), downloaded where they are missing."""
    from torchvision.datasets import $constructor

    try:
        data = $constructor(folder, $options, download=True)
    except (OSError, RuntimeError) as error:
        sys.exit(f"no images in {folder}/$folder: {error}")
    return $images, torch.as_tensor(data.targets)


@torch.inference_mode()
def count_correct(net: Net, images: torch.Tensor, labels: torch.Tensor) -> int:
    """How many of the images the network classifies as they are labelled."""
    net.eval()
    batches = zip(images.split(50), labels.split(50), strict=True)
    return sum(int((net(preprocess(x)).argmax(1) == y).sum()) for x, y in batches)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, shift, scale and shear each image at random; black comes into view."""
    limits = torch.tensor([math.radians(ROTATION), SHIFT, SHIFT, SCALE, SHEAR])
    drawn = 2 * torch.rand(len(images), 5, generator=generator) - 1
    turn, right, down, scale, shear = (drawn * limits).T
    cos, sin = turn.cos() / (1 + scale), turn.sin() / (1 + scale)
    # where each pixel of the changed image comes from, in pixels from the centre
    rows = [cos + shear * sin, sin - shear * cos, -sin, cos]
    back = torch.stack(rows, 1).view(-1, 2, 2)
    offset = -back @ torch.stack([right, down], 1).unsqueeze(2)
    size = torch.tensor(INPUT_SHAPE[:0:-1]) / 2  # (W, H): affine_grid goes from -1 to 1
    theta = torch.cat([back * size, offset], 2) / size.unsqueeze(1)
    grid = F.affine_grid(theta.to(images.device), images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def rate(progress: float) -> float:
    """Part of the peak learning rate after a part of all steps: up, then down to 0."""
    return progress / WARMUP if progress < WARMUP else (1 - progress) / (1 - WARMUP)


def train(images: torch.Tensor, labels: torch.Tensor, seed: int) -> Net:
    """A network trained from scratch; what is returned is the average of its weights."""
    torch.manual_seed(seed)  # initial weights and dropout
    generator = torch.Generator().manual_seed(seed)  # order and augmentation
    net = Net().to(images.device).train()
    averaged = copy.deepcopy(net)
    kernels = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others}],
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        nesterov=MOMENTUM > 0,
    )
    size = min(BATCH_SIZE, len(labels))
    steps_per_epoch = len(labels) // size
    steps = EPOCHS * steps_per_epoch
    step = 0
    for epoch in range(1, EPOCHS + 1):
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), generator=generator)
        order = order[: steps_per_epoch * size]
        for batch in order.to(images.device).split(size):
            step += 1
            inputs = normalize(augment(images[batch].float() / 255, generator))
            loss = F.cross_entropy(net(inputs), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * rate(step / steps)
            optimizer.step()
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            values = net.state_dict()
            for name, mean in averaged.state_dict().items():
                if mean.is_floating_point():
                    mean.lerp_(values[name], 1 - decay)
            total += loss.item()
        seconds = time.perf_counter() - started
        loss_text = f"training loss {total / steps_per_epoch:.4f}"
        print(f"epoch {epoch} of {EPOCHS}: {loss_text}, {seconds:.0f} s", flush=True)
    return averaged
''')
CHECK = """

if __name__ == "__main__":
    argparse.ArgumentParser(
        description="Load weights.safetensors and check the network."
    ).parse_args()
    load_checked(Path(__file__).with_name("weights.safetensors"))
"""
COMMANDS = Template('''

def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Without options: load weights.safetensors and check the network."
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--evaluate", action="store_true", help="judge the weights on the test images"
    )
    action.add_argument(
        "--train", action="store_true", help="train from scratch on all training images"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --train (default: 0)")
    parser.add_argument(
        "--data", default="data", help="folder with $folder (default: data)"
    )
    args = parser.parse_args()
    here = Path(__file__).parent
    if args.train:
        from safetensors.torch import save_file

        device = "cuda" if torch.cuda.is_available() else "cpu"
        images, labels = (x.to(device) for x in load_images(args.data, train=True))
        net = train(images, labels, args.seed).cpu()
        save_file(net.state_dict(), here / "trained.safetensors")
        print(f"written: {here / 'trained.safetensors'}")
    else:
        net = load_checked(here / "weights.safetensors")
    if args.train or args.evaluate:
        images, labels = load_images(args.data, train=False)
        correct = count_correct(net, images, labels)
        share = correct / len(labels)
        print(f"test accuracy: {share:.2%} ({correct:,} of {len(labels):,} images)")
        if args.evaluate and TEST_CORRECT not in (None, correct):
            sys.exit(f"it was {TEST_CORRECT:,} images when these weights were written")


if __name__ == "__main__":
    main()
''')
