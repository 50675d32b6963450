"""PyTorch at its best: channels_last, the fused AdamW, data on the device; eager, or the loss in torch.compile.

On an accelerator also in bfloat16, by autocast, and as CUDA graphs. TF32, which PyTorch's convolutions take there
unless told otherwise, is off: float32 is float32.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from cell import Cell, Train
from torch import Tensor, nn

PACKAGES = ("torch",)
WAYS: dict[str, Callable] = {
    "eager": lambda f: f,
    "compile": lambda f: torch.compile(f, dynamic=False),
    "graphs": lambda f: torch.compile(f, dynamic=False, mode="reduce-overhead"),
}


class Net(nn.Module):
    """Four 3×3 convolutions, two max pools, and a dense layer on the flattened or averaged map."""

    def __init__(self, head: str, width: int, inputs: int, channels: int, classes: int):
        super().__init__()
        self.head = head
        widths = [channels, width, width, 2 * width, 2 * width]
        self.convs = nn.ModuleList(nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in zip(widths, widths[1:]))  # noqa: B905, RUF007
        self.dense = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] in memory as [B, H, W, C]
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = F.relu(F.max_pool2d(x, 2) if i % 2 else x)
        # Flattened in the order of memory, which is that of the imported kernel's rows: height, width, channel.
        return self.dense(x.permute(0, 2, 3, 1).flatten(1) if self.head == "flatten" else x.mean((2, 3)))


def make_net(cell: Cell) -> Net:
    """The net of a cell, in channels_last; `set_weights` gives it the initial weights."""
    arrays = cell.arrays
    channels, width = arrays["backbone/convs/0/kernel"].shape[2:]
    net = Net(cell.spec["head"], width, *arrays["head/dense/kernel"].shape[:1], channels, cell.classes)
    return net.to(memory_format=torch.channels_last)


@torch.no_grad()
def set_weights(net: Net, arrays: dict[str, Tensor]) -> None:
    """Kernels [H W C_in C_out] to [C_out C_in H W], and the dense [D K] to [K D]."""
    for i, conv in enumerate(net.convs):
        conv.weight.copy_(arrays[f"backbone/convs/{i}/kernel"].permute(3, 2, 0, 1))
        conv.bias.copy_(arrays[f"backbone/convs/{i}/bias"])
    net.dense.weight.copy_(arrays["head/dense/kernel"].T)
    net.dense.bias.copy_(arrays["head/dense/bias"])


def make_rates(recipe: dict) -> list[float]:
    """The learning rate of each step: linear from zero, then a half cosine to zero."""
    peak, warmup, steps = recipe["peak_lr"], recipe["warmup_steps"], recipe["steps"]
    falling = (0.5 * peak * (1 + math.cos(math.pi * t / (steps - warmup))) for t in range(steps - warmup))
    return [*(peak * t / warmup for t in range(warmup)), *falling]


def make_optimizer(net: Net, recipe: dict) -> torch.optim.Optimizer:
    """AdamW, with weight decay on kernels alone."""
    decays = [(recipe["weight_decay"], True), (0.0, False)]
    groups = [
        {"params": [p for p in net.parameters() if (p.ndim > 1) == kernels], "weight_decay": decay}
        for decay, kernels in decays
    ]
    return torch.optim.AdamW(groups, lr=recipe["peak_lr"], betas=(0.9, 0.999), eps=1e-8, fused=True)


def load(cells: list[Cell], way: str = "eager", device: str = "cpu", precision: str = "float32") -> Train:
    """One seed after another through one net, so that it is compiled once."""
    torch.backends.cudnn.allow_tf32 = False
    net, rates = make_net(cells[0]).to(device), make_rates(cells[0].spec["recipe"])
    weights = [{name: torch.from_numpy(array).to(device) for name, array in cell.arrays.items()} for cell in cells]
    names = ("images", "labels", "order", "mean", "std")
    data = [[torch.from_numpy(getattr(cell, name)).to(device) for name in names] for cell in cells]
    data = [[array.long() if array.dtype == torch.int32 else array for array in own] for own in data]  # for indexing

    def loss_fn(images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        x = ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)  # a view: channels_last
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return F.cross_entropy(net(x), labels)

    compute = WAYS[way](loss_fn)

    def train_seed(steps: int, images: Tensor, labels: Tensor, order: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        optimizer, losses = make_optimizer(net, cells[0].spec["recipe"]), []
        for index, rate in zip(order[:steps], rates, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss = compute(images[index], labels[index], mean, std)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())  # a CUDA graph writes the next one into the same memory
        return torch.stack(losses)

    def train(steps: int, watch: bool) -> np.ndarray:
        losses = []
        for arrays, own in zip(weights, data, strict=True):
            set_weights(net, arrays)
            losses.append(train_seed(steps, *own).cpu().numpy())  # which waits for the last update, too
        return np.stack(losses)

    return train
