"""What the phases of the training share: workers, optimizer, learning rate, progress."""

import ctypes
import math
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

# Processes of one thread each: two threads of one process would wait for each other at every operation.
WORKERS = 2
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.05


def spawn_workers(train: Callable, *arguments: object) -> None:
    """Runs `train(worker, *arguments)` in each worker, joined in a process group."""
    with tempfile.TemporaryDirectory() as scratch:
        mp.spawn(start_worker, args=(f"{scratch}/rendezvous", train, arguments), nprocs=WORKERS)


def start_worker(worker: int, rendezvous: str, train: Callable, arguments: tuple) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=worker, world_size=WORKERS)
    train(worker, *arguments)
    dist.destroy_process_group()


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed: giving it back and faulting it in again costs a third of a step."""
    mmap_threshold, trim_threshold = -3, -1
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def autocast() -> torch.autocast:
    """In bf16 on a CPU that multiplies it; any other takes ten times as long for it as for f32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def rate_factor(step: int, n_steps: int) -> float:
    """Of the learning rate: linear warm-up, then half a cosine down to 2 %."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / (n_steps - WARMUP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


class Trainer:
    """AdamW over `modules`, each with its learning rate, on the mean of the workers' gradients."""

    def __init__(self, modules: Sequence[tuple[nn.Module, float]], n_steps: int):
        self.n_steps = n_steps
        self.rates: list[float] = []
        groups = []
        for module, rate in modules:
            matrices = [weight for weight in module.parameters() if weight.dim() > 1]
            others = [weight for weight in module.parameters() if weight.dim() == 1]
            groups.append({"params": matrices, "weight_decay": WEIGHT_DECAY})
            groups.append({"params": others, "weight_decay": 0.0})
            self.rates.extend((rate, rate))
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self.weights = [weight for module, _ in modules for weight in module.parameters()]

    def step(self, step: int, loss: torch.Tensor) -> None:
        factor = rate_factor(step, self.n_steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.weights)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()


def mean_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy, in nats a token. `logits`: `[n, vocab_size]`."""
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def average_gradients(weights: list[nn.Parameter]) -> None:
    """Leaves the mean of the workers' gradients at each of them."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    mean = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(mean)
    mean /= WORKERS
    for gradient, averaged in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))


class Progress:
    """Prints the loss, the pace and the time left, every 50 steps."""

    def __init__(self, n_steps: int, unit: str):
        self.n_steps = n_steps
        self.unit = unit
        self.started = time.monotonic()
        self.losses: list[float] = []
        self.n_units = 0

    def step(self, loss: float, n_units: int) -> None:
        self.losses.append(loss)
        self.n_units += n_units
        done = len(self.losses)
        if done % 50 and done < self.n_steps:
            return
        seconds = time.monotonic() - self.started
        recent = self.losses[-50:]
        print(
            f"step {done}/{self.n_steps}  loss {sum(recent) / len(recent):.4f}  "
            f"{self.n_units / seconds:,.0f} {self.unit}/s  {seconds / 60:.1f} min  "
            f"ETA {seconds / done * (self.n_steps - done) / 60:.1f} min",
            flush=True,
        )
