"""Trains the models of `imaging` and writes them beside this file, with their held-out accuracy in workload.toml: `python build_models.py`,
with `--only NAME` for one of them.

Needs the extra `models`. The slices come from seeds that no split uses. Training is seeded; rebuilt models agree up to torch's rounding.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from openinfer.workloads.accuracy import Figure, bootstrap, record
from openinfer.workloads.imaging.networks import Classifier, UNet, classifier_onnx, unet_onnx
from openinfer.workloads.imaging.phantom import SIZE, Ellipse, mask_of, slices
from scipy import ndimage
from torch import nn

HERE = Path(__file__).parent
TRAINING, HELD_OUT = 91001, 91002
HELD = 600
FOUND = 0.5  # share of a lesion's pixels that have to be marked for it to count as found


def dataset(seed: int, count: int) -> tuple[Any, Any, list[tuple[Ellipse, ...]]]:
    """Images [n, 1, 128, 128], masks of the same shape, lesions."""
    parts = [one for first in range(0, count, 64) for one in slices(seed, first, min(64, count - first))]
    images, masks = np.stack([p.image for p in parts]), np.stack([p.mask for p in parts])
    return images[:, None], masks[:, None], [p.lesions for p in parts]


def train(net: nn.Module, inputs: Any, targets: Any, loss: Callable[[Any, Any], Any], steps: int, batch: int, rate: float) -> None:
    """Adam under a one-cycle schedule; every slice and its mirror image once before any comes again."""
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator, order, begin = np.random.default_rng(0), np.zeros(0, np.int64), time.perf_counter()
    net.train()
    for step in range(steps):
        if len(order) < batch:
            order = np.concatenate([order, generator.permutation(2 * len(inputs))])
        chosen, order = order[:batch], order[batch:]
        x, y = inputs[chosen % len(inputs)], targets[chosen % len(inputs)]
        mirrored = torch.from_numpy(chosen >= len(inputs))[:, None, None, None]
        x = torch.where(mirrored, x.flip(3), x)
        y = torch.where(mirrored, y.flip(3), y) if y.ndim == 4 else y
        optimizer.zero_grad()
        value = loss(net(x), y)
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}, loss {value.item():.4f}, {time.perf_counter() - begin:.0f} s", flush=True)
    net.eval()


def build_classifier() -> tuple[Figure, dict[str, Figure]]:
    """Train, write, measure."""
    images, _, lesions = dataset(TRAINING, 6000)
    net = Classifier()
    labels = torch.tensor([int(bool(found)) for found in lesions])
    train(net, torch.from_numpy(images), labels, nn.functional.cross_entropy, 1100, 64, 8e-3)
    held, _, truth = dataset(HELD_OUT, HELD)
    answers = _write(classifier_onnx(net), "lesion_classifier", held)[:, 1] > 0.5
    positive = np.array([bool(found) for found in truth])

    def share(index: Any, of: Any) -> float:
        return float((answers[index] == positive[index])[of[index]].mean())

    return bootstrap(lambda i: share(i, np.ones(HELD, bool)), HELD), {
        "sensitivity": bootstrap(lambda i: share(i, positive), HELD),
        "specificity": bootstrap(lambda i: share(i, ~positive), HELD),
    }


def segmentation_loss(logits: Any, masks: Any) -> Any:
    """Cross entropy, and one less the soft Dice coefficient of the batch."""
    share = torch.sigmoid(logits)
    dice = (2 * (share * masks).sum() + 1) / (share.sum() + masks.sum() + 1)
    return nn.functional.binary_cross_entropy_with_logits(logits, masks) + 1 - dice


def build_unet() -> tuple[Figure, dict[str, Figure]]:
    """Train, write, measure."""
    images, masks, _ = dataset(TRAINING, 4000)
    net = UNet()
    train(net, torch.from_numpy(images), torch.from_numpy(masks.astype(np.float32)), segmentation_loss, 700, 8, 6e-3)
    held, wanted, truth = dataset(HELD_OUT, HELD)
    marked = _write(unet_onnx(net), "lesion_unet", held) > 0.5
    both, either = (marked & wanted).sum((1, 2, 3)), marked.sum((1, 2, 3)) + wanted.sum((1, 2, 3))
    found = [np.array([_found(marked[i, 0], lesion) for lesion in lesions]) for i, lesions in enumerate(truth)]
    false = np.array([_false_marks(marked[i, 0], wanted[i, 0]) for i in range(HELD)])
    return bootstrap(lambda i: float(2 * both[i].sum() / either[i].sum()), HELD), {
        "sensitivity per lesion": bootstrap(lambda i: float(np.concatenate([found[k] for k in i]).mean()), HELD),
        "false marks per slice": bootstrap(lambda i: float(false[i].mean()), HELD),
    }


def _found(marked: Any, lesion: Ellipse) -> bool:
    where = mask_of([lesion])
    return bool(marked[where].mean() >= FOUND) if where.any() else False


def _false_marks(marked: Any, wanted: Any) -> int:
    """Connected marks that touch no lesion."""
    regions, count = ndimage.label(marked)
    return int(count - len(np.unique(regions[wanted & marked])))


def _write(proto: onnx.ModelProto, name: str, held: Any) -> Any:
    from openinfer.engine import load

    path = HERE / f"{name}.onnx"
    onnx.save(proto, path)
    print(name, path.stat().st_size, "bytes")
    with load(path) as engine:
        (port,) = engine.outputs
        return np.concatenate([engine.run({"image": held[i : i + 50]})[port.name] for i in range(0, len(held), 50)])


BUILDERS = {"lesion_classifier": build_classifier, "lesion_unet": build_unet}


def main() -> None:
    """Build what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BUILDERS)
    only = parser.parse_args().only
    for name in [only] if only else BUILDERS:
        torch.manual_seed(0)
        figure, others = BUILDERS[name]()
        print(name, figure, others)
        record(HERE / "workload.toml", {name: figure}, {name: others})


assert SIZE % 8 == 0  # the U-Net halves it three times

if __name__ == "__main__":
    main()
