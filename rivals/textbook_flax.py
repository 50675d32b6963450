"""As the Flax tutorial teaches it: a plain module, nnx.Optimizer, one nnx.jit step, a Python loop over the batches.

Nothing of gapbench is used. Unlike the tutorial's, the net has four convolutions and pools before the ReLU (they
commute), and no metrics are kept but the loss.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from cell import Cell, Train
from flax import nnx

PACKAGES = ("flax", "jax", "optax")


class CNN(nnx.Module):
    """Four 3×3 convolutions, two max pools, and a dense layer on the flattened or averaged map."""

    def __init__(self, head: str, width: int, inputs: int, channels: int, classes: int, *, rngs: nnx.Rngs):
        self.head = head
        self.conv1 = nnx.Conv(channels, width, kernel_size=(3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(width, width, kernel_size=(3, 3), rngs=rngs)
        self.conv3 = nnx.Conv(width, 2 * width, kernel_size=(3, 3), rngs=rngs)
        self.conv4 = nnx.Conv(2 * width, 2 * width, kernel_size=(3, 3), rngs=rngs)
        self.linear = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.conv1(x))
        x = nnx.relu(nnx.max_pool(self.conv2(x), window_shape=(2, 2), strides=(2, 2)))
        x = nnx.relu(self.conv3(x))
        x = nnx.relu(nnx.max_pool(self.conv4(x), window_shape=(2, 2), strides=(2, 2)))
        x = x.reshape(x.shape[0], -1) if self.head == "flatten" else x.mean(axis=(1, 2))
        return self.linear(x)


def make_model(cell: Cell) -> CNN:
    """The net at the cell's initial weights."""
    arrays = cell.arrays
    inputs, classes = arrays["head/dense/kernel"].shape
    channels, width = arrays["backbone/convs/0/kernel"].shape[2:]
    model = nnx.eval_shape(lambda: CNN(cell.spec["head"], width, inputs, channels, classes, rngs=nnx.Rngs(0)))
    layers = (model.conv1, model.conv2, model.conv3, model.conv4, model.linear)
    names = (*(f"backbone/convs/{i}" for i in range(4)), "head/dense")
    for layer, name in zip(layers, names, strict=True):
        layer.kernel.set_value(jnp.asarray(arrays[f"{name}/kernel"]))
        layer.bias.set_value(jnp.asarray(arrays[f"{name}/bias"]))
    return model


def make_optimizer(cell: Cell) -> optax.GradientTransformation:
    """AdamW on the sweep's schedule, with weight decay on kernels alone."""
    recipe = cell.spec["recipe"]
    schedule = optax.warmup_cosine_decay_schedule(0.0, recipe["peak_lr"], recipe["warmup_steps"], recipe["steps"])
    return optax.adamw(
        schedule, weight_decay=recipe["weight_decay"], mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )


def loss_fn(model: CNN, images: jax.Array, labels: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Mean cross entropy of a batch of raw pixels."""
    logits = model((images.astype(jnp.float32) / 255 - mean) / std)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@nnx.jit
def train_step(
    model: CNN, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array, mean: jax.Array, std: jax.Array
) -> jax.Array:
    """One update of the model and the optimizer, in place; the loss before it."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, images, labels, mean, std)
    optimizer.update(model, grads)
    return loss


def load(cells: list[Cell]) -> Train:
    """One seed after another."""
    models, tx = [make_model(cell) for cell in cells], make_optimizer(cells[0])  # one: nnx.jit compiles for each anew
    optimizers = [nnx.Optimizer(model, tx, wrt=nnx.Param) for model in models]
    pairs = list(zip(models, optimizers, strict=True))
    initial = [jax.tree.map(jnp.copy, nnx.state(pair)) for pair in pairs]

    def train(steps: int, watch: bool) -> np.ndarray:
        losses = []
        for cell, (model, optimizer), start in zip(cells, pairs, initial, strict=True):
            nnx.update((model, optimizer), start)
            losses += [
                train_step(model, optimizer, cell.images[index], cell.labels[index], cell.mean, cell.std)
                for index in cell.order[:steps]
            ]
        return np.reshape(jax.device_get(losses), (len(cells), steps))

    return train
