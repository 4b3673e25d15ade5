"""What packing buys: examples a second, share of the device's own rate of products, and memory, at K = 1 to 32.

Synthetic rows of one length, adapters of size 64, batches of 32: the shapes of real training without its data. An
engine is measured as it is laid out (on a CPU one thread an engine), and at the first length the whole machine as
well: one trial with every core, against K trials spread over an engine a core. Ratios are within one run.
ADAPTUNE_BENCH_BACKBONES chooses among the shapes of MiniLM, BERT-base (both by default) and BERT-large,
ADAPTUNE_BENCH_LENGTHS the word pieces of a row and ADAPTUNE_BENCH_PACKS the sizes of packs, separated by commas.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from trainables.backbones import shape_of
from trainables.backbones.loading import PUBLISHED_CONFIGS
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.device.dtype import compute_dtype
from trainables.device.memory import PeakMemory, keep_freed_memory, release_unused, used_bytes
from trainables.estimate.flops import measure_rate, training_flops
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

# MiniLM's is written out, so that a machine without its package can be measured.
SHAPES = {
    "minilm": PUBLISHED_CONFIGS["bert-base-uncased"]
    | {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "bert-base": PUBLISHED_CONFIGS["bert-base-uncased"],
    "bert-large": PUBLISHED_CONFIGS["bert-large-uncased"],
}
PACKS = "1,2,4,8,16,32"
LENGTHS = "13,64,128"
BATCH_SIZE = 32
ADAPTER_SIZE = 64
# Steps before the first that counts, and the least number and seconds of those that do; the middle one is the figure.
WARM_UP_STEPS, STEPS, SECONDS = 2, 3, 2.0
# A step that would take longer than this at half the device's rate is left out, and kept as not measured.
LONGEST_STEP_S = 30.0


def measure() -> Mapping[str, float | None]:
    """Every quantity by backbone, length and K."""
    keep_freed_memory()  # as an engine does
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = os.environ.get("ADAPTUNE_BENCH_BACKBONES", "minilm,bert-base").split(",")
    lengths, packs = _numbers("LENGTHS", LENGTHS), _numbers("PACKS", PACKS)
    cores = torch.get_num_threads()
    results: dict[str, float | None] = {}
    if device.type == "cpu":
        results |= _measure_machine(names[0], length=lengths[0], cores=cores)
        torch.set_num_threads(1)
    rate = measure_rate()
    results["products_gflops"] = rate / 1e9
    for name in names:
        encoder = random_encoder(name, device)
        for length in lengths:
            results |= _measure_engine(f"{name}.length{length}", encoder, length, rate, packs)
    torch.set_num_threads(cores)
    return results


def _numbers(name: str, default: str) -> list[int]:
    return [int(number) for number in os.environ.get(f"ADAPTUNE_BENCH_{name}", default).split(",")]


def _measure_engine(
    prefix: str, encoder: Encoder, length: int, rate: float, packs: Sequence[int]
) -> dict[str, float | None]:
    """One engine at every K: throughput, its ratio to K = 1, its share of the rate of products, and memory."""
    results: dict[str, float | None] = {}
    flops = training_flops(config(0), encoder.shape, length) * length  # of an example
    alone: tuple[float, int] | None = None
    for num_trials in packs:
        name = f"{prefix}.k{num_trials}"
        if num_trials * BATCH_SIZE * flops / (rate / 2) > LONGEST_STEP_S:
            results[f"{name}.examples_per_second"] = None
            continue
        examples, peak, states = step_rate(encoder, num_trials, length)
        results[f"{name}.examples_per_second"] = examples
        results[f"{name}.share_of_products"] = examples * flops / rate
        results[f"{name}.peak_mb"] = peak / 2**20
        if alone is None:
            alone = (examples, peak)
            continue
        results[f"{name}.speedup"] = examples / alone[0]
        # What as many processes would hold: a float32 backbone each, with moments and gradients of what is trained.
        backbones = (num_trials - 1) * (4 * sum(p.numel() for p in encoder.parameters()) + states)
        results[f"{name}.memory_of_more_backbones"] = (peak - alone[1]) / backbones
    return results


def step_rate(encoder: Encoder, num_trials: int, length: int) -> tuple[float, int, int]:
    """Examples a second of a pack, its peak memory over what was in use before, and bytes of one trial's own state."""
    device = encoder.device
    release_unused()
    before, peak = used_bytes(device) or 0, PeakMemory(device)
    data = {"train": random_split(length, encoder.shape.vocab_size)}
    pack = Pack(encoder, data, num_outputs=2)
    jobs = [Job(config=config(seed), done=lambda outcome: None) for seed in range(num_trials)]
    pack.join([RunningTrial(job, len(data["train"])) for job in jobs])
    times: list[float] = []
    while len(times) < WARM_UP_STEPS + STEPS or sum(times[WARM_UP_STEPS:]) < SECONDS:
        began = time.perf_counter()
        pack.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    highest = (peak.read() or 0) - before
    seconds = statistics.median(times[WARM_UP_STEPS:])
    return num_trials * BATCH_SIZE / seconds, highest, pack.weights.bytes_per_trial


def _measure_machine(name: str, *, length: int, cores: int) -> dict[str, float | None]:
    """Examples a second of the whole machine: one trial with every core, and 8 trials over an engine a core."""
    alone = _all_engines(name, engines=1, threads=cores, num_trials=1, length=length)
    packed = _all_engines(name, engines=cores, threads=1, num_trials=8, length=length)
    prefix = f"{name}.length{length}.machine"
    return {
        f"{prefix}.k1.examples_per_second": alone,
        f"{prefix}.k8.examples_per_second": packed,
        f"{prefix}.k8.speedup": packed / alone,
    }


def _all_engines(name: str, *, engines: int, threads: int, num_trials: int, length: int) -> float:
    """The sum of the rates of engines that train at the same time, each its share of the trials."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(engines)
    with context.Pool(engines, initializer=_share, initargs=(barrier,)) as pool:
        share = -(-num_trials // engines)
        return sum(pool.starmap(_engine_rate, [(name, threads, share, length)] * engines, chunksize=1))


def _share(barrier: object) -> None:
    global _barrier
    _barrier = barrier


def _engine_rate(name: str, threads: int, num_trials: int, length: int) -> float:
    keep_freed_memory()
    torch.set_num_threads(threads)
    encoder = random_encoder(name, torch.device("cpu"))
    step_rate(encoder, num_trials, length)
    _barrier.wait()  # type: ignore[name-defined]  # set by `_share` in every process of the pool
    return max(step_rate(encoder, num_trials, length)[0] for _ in range(3))


def config(seed: int) -> TrialConfig:
    """One trial of the pack."""
    return TrialConfig(
        task="synthetic",
        backbone="synthetic",
        method="adapter",
        method_options={"adapter_size": ADAPTER_SIZE},
        num_epochs=1000,
        batch_size=BATCH_SIZE,
        seed=seed,
    )


def random_split(length: int, vocab_size: int, rows: int = 512) -> TokenizedSplit:
    """Rows of one length with random word pieces and labels."""
    rng = np.random.Generator(np.random.Philox(0))
    return TokenizedSplit(
        offsets=np.arange(rows + 1) * length,
        input_ids=rng.integers(5, vocab_size, rows * length, dtype=np.int32),
        token_type_ids=np.zeros(rows * length, dtype=np.int8),
        labels=rng.integers(0, 2, rows),
    )


def random_encoder(name: str, device: torch.device) -> Encoder:
    """An encoder of a known shape with random weights; speed does not depend on their values."""
    if name not in SHAPES:
        raise ValueError(f"backbones are {', '.join(SHAPES)}, but got {name!r}")
    return encoder_of_shape(shape_of(SHAPES[name]), device, compute_dtype("auto", device))


def encoder_of_shape(shape: EncoderShape, device: torch.device, dtype: torch.dtype) -> Encoder:
    """The same for any shape, its products in any dtype; the same weights each time and on every device."""
    torch.manual_seed(0)
    masters = {key: tensor.detach() for key, tensor in Encoder(shape).named_parameters()}
    for key, tensor in masters.items():
        if not key.endswith("bias") and "layernorm" not in key:
            tensor.normal_(std=0.02)
    return Encoder(shape, masters).load(device, dtype)
