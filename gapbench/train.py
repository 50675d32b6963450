"""One run: a pure train step, and the loop that calls it, evaluates on the fixed grid and keeps the clock."""

import functools
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Int32, UInt8

from gapbench.augmentation import AUGMENTATIONS
from gapbench.data import Dataset, Split, batches, split
from gapbench.data.splits import Splits
from gapbench.evaluate import BATCH, Score, count_batch, evaluate
from gapbench.keys import key_for
from gapbench.models.classifier import Moments, init_classifier, normalise
from gapbench.models.registry import BACKBONES, own_code
from gapbench.spec import Recipe, RunSpec, digest

PARTS = ("backbone", "head")


class TrainState(NamedTuple):
    """Everything a step changes."""

    params: nnx.State
    stats: nnx.State  # batch statistics; empty without batch norm
    opt_state: optax.OptState
    step: Int[Array, ""]


class Pulse(NamedTuple):
    """What a step tells of itself, of its batch before the update."""

    loss: Float[Array, ""]  # mean cross entropy, nats
    gradient: Float[Array, "2"]  # L2 norm of its gradient for all parameters of the backbone, and of the head


class Hyper(NamedTuple):
    """What one program takes as input, so that replicas may differ in it."""

    peak_lr: Float[Array, ""]
    weight_decay: Float[Array, ""]
    head_weight_decay: Float[Array, ""]
    dropout: Float[Array, ""]  # without effect in a program without dropout


class Keys(NamedTuple):
    """Of the streams that a step draws from, each folded with its number; a program has none that it does not use."""

    augment: jax.Array
    dropout: jax.Array
    backbone_dropout: jax.Array


class Constants(NamedTuple):
    """What all steps of one run share, beside its images."""

    moments: Moments
    keys: Keys
    hyper: Hyper


def make_hyper(recipe: Recipe) -> Hyper:
    """The recipe's own values."""
    head_decay = recipe.weight_decay if recipe.head_weight_decay is None else recipe.head_weight_decay
    values = (recipe.peak_lr, recipe.weight_decay, head_decay, recipe.dropout)
    return Hyper(*(jnp.asarray(value, jnp.float32) for value in values))


def make_constants(spec: RunSpec, moments: Moments) -> Constants:
    """What a spec decides of them, and the moments of its training images."""
    return Constants(moments, Keys(*(key_for(spec.seed, name) for name in Keys._fields)), make_hyper(spec.recipe))


def make_schedule(recipe: Recipe) -> optax.Schedule:
    """The learning rate as a fraction of its peak: linear warm-up from zero, then a half cosine to zero at the last
    step, or a constant."""
    if recipe.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, 1.0, recipe.warmup_steps, recipe.steps)
    if not recipe.warmup_steps:  # optax's warmup_constant_schedule would stay at zero
        return optax.constant_schedule(1.0)
    return optax.warmup_constant_schedule(0.0, 1.0, recipe.warmup_steps)


def make_optimizer(recipe: Recipe, hyper: Hyper) -> optax.GradientTransformation:
    """AdamW, or SGD with Nesterov momentum 0.9 and L2; weight decay acts on kernels alone.

    `head_lr` scales the head's whole update, the decay of AdamW included, as a learning rate of its own would.
    """

    def in_head(path: Any) -> bool:
        return bool(path[0].key == "head")

    def decay(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        rate = hyper.head_weight_decay if in_head(path) else hyper.weight_decay
        return update + rate * param if param.ndim > 1 else update

    def scale_head(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        return recipe.head_lr * update if in_head(path) else update

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        return hyper.peak_lr * fraction(step)

    fraction = make_schedule(recipe)
    decayed, scaled = (
        optax.stateless(functools.partial(jax.tree_util.tree_map_with_path, change)) for change in (decay, scale_head)
    )
    steps = {
        "adamw": [optax.scale_by_adam(), decayed, optax.scale_by_learning_rate(schedule)],
        "sgd": [decayed, optax.sgd(schedule, momentum=0.9, nesterov=True)],
    }[recipe.optimizer]
    return optax.chain(*steps, *([scaled] if recipe.head_lr != 1 else []))


def train_step(
    graph: nnx.GraphDef,
    recipe: Recipe,
    state: TrainState,
    images: UInt8[Array, "B H W C"],
    labels: Int[Array, "B"],
    constants: Constants,
) -> tuple[TrainState, Pulse]:
    """One update on one batch."""
    moments, keys, hyper = constants
    if recipe.augment != "none":
        images = AUGMENTATIONS[recipe.augment](images, jax.random.fold_in(keys.augment, state.step))

    def loss_fn(params: Any) -> tuple[Float[Array, ""], Any]:
        model = nnx.merge(graph, params, state.stats, copy=True)  # batch norm may then update its own
        dropout = (hyper.dropout, jax.random.fold_in(keys.dropout, state.step)) if recipe.dropout else None
        backbone_key = jax.random.fold_in(keys.backbone_dropout, state.step) if model.backbone_dropout else None
        logits = model(normalise(images, moments), train=True, dropout=dropout, backbone_key=backbone_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), nnx.state(model, nnx.Not(nnx.Param))

    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = make_optimizer(recipe, hyper).update(grads, state.opt_state, state.params)
    norms = jnp.stack([jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads[part]))) for part in PARTS])
    state = TrainState(optax.apply_updates(state.params, updates), stats, opt_state, state.step + 1)
    return state, Pulse(loss, norms)


@dataclass(frozen=True)
class Program:
    """The compiled step and evaluation of one shape."""

    step: jax.stages.Compiled  # of `train_step`
    count: jax.stages.Compiled  # of `count_batch`
    compile_s: float


def init_state(spec: RunSpec, image_channels: int, classes: int) -> tuple[nnx.GraphDef, TrainState]:
    """The net's static graph and the state at step 0."""
    graph, *states = nnx.split(init_classifier(spec, image_channels, classes), nnx.Param, ...)
    params, stats = states
    optimizer = make_optimizer(spec.recipe, make_hyper(spec.recipe))
    return graph, TrainState(params, stats, optimizer.init(params), jnp.zeros((), jnp.int32))


@functools.lru_cache(maxsize=16)
def compile_program(shape: RunSpec, image_channels: int, classes: int) -> Program:
    """Compile the step and the evaluation once for all specs of one `RunSpec.program`."""
    start = time.perf_counter()
    graph, state = init_state(shape, image_channels, classes)
    px, moments = shape.task.px, (jnp.zeros(image_channels), jnp.ones(image_channels))
    constants = make_constants(shape, moments)

    def batch_of(n: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        return (
            jax.ShapeDtypeStruct((n, px, px, image_channels), jnp.uint8),
            jax.ShapeDtypeStruct((n,), jnp.int32),
        )

    step = jax.jit(functools.partial(train_step, graph, shape.recipe), donate_argnums=0)
    count = jax.jit(functools.partial(count_batch, graph))
    compiled_step = step.lower(state, *batch_of(shape.recipe.batch), constants).compile()
    counted = jax.ShapeDtypeStruct((BATCH,), jnp.bool_)
    compiled_count = count.lower((state.params, state.stats), moments, *batch_of(BATCH), counted).compile()
    return Program(compiled_step, compiled_count, time.perf_counter() - start)


class Start(NamedTuple):
    """A run before its first step, whichever driver takes it from there."""

    graph: nnx.GraphDef
    splits: Splits
    order: Int32[np.ndarray, "T B"]  # indices into `splits.train`
    state: TrainState
    constants: Constants
    pairing: dict[str, str]  # hashes of what the two runs of a pair must share
    parameters: dict[str, int]  # of the backbone and of the head


def start_run(spec: RunSpec, dataset: Dataset) -> Start:
    """Everything that a spec's seed and hyperparameters decide."""
    splits = split(dataset, spec.task, spec.seed)
    graph, state = init_state(spec, dataset.train_images.shape[-1], len(dataset.class_names))
    order = batches(spec.task.train_images, spec.recipe.batch, spec.recipe.steps, spec.seed)
    parts = {part: state.params[part] for part in PARTS}
    parameters = {part: sum(leaf.size for leaf in jax.tree.leaves(params)) for part, params in parts.items()}
    pairing = {
        "data": dataset.fingerprint,
        "subset": splits.subset_hash,
        "backbone": hash_arrays(parts["backbone"]),
        "order": hash_arrays(order),
    }
    constants = make_constants(spec, (jnp.asarray(splits.mean), jnp.asarray(splits.std)))
    if code := own_code(BACKBONES[spec.backbone.kind]):  # which no commit of ours names
        pairing["backbone_code"] = digest(code, 16)
    if spec.recipe.augment != "none":
        pairing["augment"] = hash_arrays(jax.random.key_data(constants.keys.augment))
    return Start(graph, splits, order, state, constants, pairing, parameters)


class Trained(NamedTuple):
    """What a run leaves: raw numbers, ready for its record."""

    reason: str  # why it ended early; empty when it did not
    curve: dict[str, list[Any]]  # columns step, split, loss, accuracy
    gradients: dict[str, list[Any]]  # columns step, backbone, head
    final: dict[str, Score]  # by whole split at the last step; empty for a run that ended early
    pairing: dict[str, str]  # hashes of what the two runs of a pair must share
    parameters: dict[str, int]  # of the backbone and of the head
    timing: dict[str, float]  # seconds: compile_s (shared by the runs of one program), train_s, eval_s
    state: TrainState


def train_run(spec: RunSpec, dataset: Dataset) -> Trained:
    """Train and evaluate one spec, step by step: the CPU driver.

    One compiled step is called from Python and dispatch runs ahead; the host waits only at evaluations. A loss
    or gradient that is not finite ends the run, with the evaluations made so far.
    """
    program = compile_program(spec.program, dataset.train_images.shape[-1], len(dataset.class_names))
    _, splits, order, state, constants, pairing, parameters = start_run(spec, dataset)
    moments, curve, gradients = constants.moments, empty_curve(), empty_gradients()
    timing = {"compile_s": program.compile_s, "train_s": 0.0, "eval_s": 0.0}
    reason, done, scores = "", 0, dict[str, Score]()
    for step in spec.recipe.eval_steps:
        start = time.perf_counter()
        pending = []
        for index in order[done:step]:
            state, pulse = program.step(state, splits.train.images[index], splits.train.labels[index], constants)
            pending.append(pulse)
        pulses = jax.device_get(pending)
        finite = np.isfinite([(pulse.loss, *pulse.gradient) for pulse in pulses]).all(axis=-1)
        trained = time.perf_counter()
        if pulses:
            extend_gradients(gradients, done, pulses[0].gradient)
        scores = evaluate_splits(program, state, moments, splits.curve)
        timing["train_s"] += trained - start
        timing["eval_s"] += time.perf_counter() - trained
        reason = explain_divergence(0 if finite.all() else done + int(np.argmin(finite)) + 1, step, scores)
        if reason:
            break
        extend_curve(curve, step, scores)
        done = step
    if not reason:
        scores = evaluate_splits(program, state, moments, splits.whole)
        reason = explain_divergence(0, done, scores)  # where the curve's parts were finite
    return Trained(reason, curve, gradients, {} if reason else scores, pairing, parameters, timing, state)


def empty_curve() -> dict[str, list[Any]]:
    """The columns of a record's curve."""
    return {"step": [], "split": [], "loss": [], "accuracy": []}


def extend_curve(curve: dict[str, list[Any]], step: int, scores: Mapping[str, Score]) -> None:
    """One row a split."""
    for name, score in scores.items():
        for column, value in zip(curve, (step, name, *score), strict=True):
            curve[column].append(value)


def empty_gradients() -> dict[str, list[Any]]:
    """The columns of a record's gradients."""
    return {"step": [], **{part: [] for part in PARTS}}


def extend_gradients(gradients: dict[str, list[Any]], step: int, norms: Float[np.ndarray, "2"]) -> None:
    """A row for the step that began at an evaluation; none once a run has diverged."""
    if np.isfinite(norms).all():
        for column, value in zip(gradients, (step, *map(float, norms)), strict=True):
            gradients[column].append(value)


def explain_divergence(lost: int, step: int, scores: Mapping[str, Score]) -> str:
    """Why a run ends at this evaluation; empty when it goes on. `lost`: its first step without a finite pulse, or 0.

    The loss alone can hide it: a maximum over NaN may be finite, and a head that sees only zeros has the loss log K.
    """
    if lost:
        return f"the training loss or its gradient is not finite at step {lost}"
    if not all(np.isfinite(score.loss) for score in scores.values()):
        return f"an evaluated loss is not finite at step {step}"
    return ""


def evaluate_splits(
    program: Program, state: TrainState, moments: Moments, splits: Mapping[str, Split]
) -> dict[str, Score]:
    """The score of each named split."""
    count = functools.partial(program.count, (state.params, state.stats), moments)
    return {name: evaluate(count, part.images, part.labels) for name, part in splits.items()}


def hash_arrays(arrays: Any) -> str:
    """sha256 over the bytes of every leaf, 16 digits."""
    leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(jax.device_get(arrays))]
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()[:16]
