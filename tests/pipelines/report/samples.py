"""Evaluations as ``holdfast evaluate`` leaves them, made up but for the digits, their networks and their pictures."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.data.digits import Digits
from trainers.evaluation.intervals import wilson

CHECKS = (
    "zero gradients",
    "vanishing gradients",
    "unbounded eps leaves accuracy",
    "black-box stronger than white-box",
    "more steps still gain",
    "more restarts still gain",
    "randomness",
    "non-finite logits",
    "quantised input",
    "normalisation twice or not at all",
    "train mode leak",
    "examples outside the threat",
)


def share(right: int, n: int) -> dict[str, Any]:
    return {"accuracy": right / n, "interval": list(wilson(right, n)), "n": n, "right": right}


def attacks(start: int, fooled: dict[str, int]) -> list[dict[str, Any]]:
    rows, left = [], start
    for name, caught in fooled.items():
        forwards = {"apgd-ce": 101, "apgd-t": 909, "fab-t": 1800, "square": 5000}.get(name, 900) * left
        row = {"name": name, "attacked": left, "fooled": caught, "left": left - caught, "forwards": float(forwards)}
        rows.append({**row, "backwards": forwards / 2, "seconds": forwards * 4.1e-5})
        left -= caught
    return rows


def threat(
    norm: str,
    eps: float,
    n: int,
    clean: int,
    fooled: dict[str, int],
    per_class: Sequence[tuple[str, int, int, int]] = (),
    beyond: dict[str, int] | None = None,
) -> dict[str, Any]:
    robust = clean - sum(fooled.values())
    after = None
    if beyond is not None:
        left = robust - sum(beyond.values())
        after = {"attacks": attacks(robust, beyond), "robust": share(left, n)}
    rows = [
        {"class": name, "n": of, "clean": ok, "robust": held, "interval": list(wilson(held, of)) if of else [0, 1]}
        for name, of, ok, held in per_class
    ]
    found = {"norm": norm, "eps": eps, "attacks": attacks(clean, fooled), "robust": share(robust, n)}
    return {**found, "beyond": after, "per_class": rows}


def curve(norm: str, eps: Sequence[float], right: Sequence[int], n: int) -> dict[str, Any]:
    shares = {"accuracy": [r / n for r in right], "interval": [list(wilson(r, n)) for r in right]}
    return {"norm": norm, "attack": "apgd-ce", "eps": list(eps), **shares}


def evaluation(
    n: int, of: int, clean: int, threats: list[dict[str, Any]], classes: Sequence[str], **others: Any
) -> dict[str, Any]:
    """One without a doubt, a curve, a suite, a run: ``others`` replace what they name."""
    every = [attack for one in threats for attack in one["attacks"]]
    cost = {key: sum(attack[key] for attack in every) for key in ("forwards", "backwards", "seconds")}
    return {
        "name": "digits-1-3f2a9c0d11",
        "model": {
            "source": "models:/digits/1",
            "digest": "9f2c4be1a07d33b85c6f10e8d2a94b7763c05a1e8b4f92d7c1306ea5f8b97d24",
            "architecture": "holdfast_resnet",
            "parameters": 78042,
            "run_id": None,
            "version": None,
            "stated_clean_accuracy": None,
        },
        "data": {
            "name": "digits",
            "split": "test",
            "digest": "4c1d99f0e7b26a3358d1c7f4a0b95e826fd31c9b70e4582ad6f3c10b9e87a245",
            "n": n,
            "of": of,
            "classes": list(classes),
            "input_size": [1, 8, 8],
            "corrupt": {},
        },
        "clean": share(clean, n),
        "threats": threats,
        "curves": [],
        "doubts": [],
        "checked": list(CHECKS),
        "attack": {"name": "AutoAttack standard", "version": "standard", "mode": "fast", "seed": 0, "batch_size": 64},
        "cost": {**cost, "workers": 2, "device": "cpu"},
        "versions": {"holdfast": "0.1.0", "torch": "2.15.0", "timm": "1.0.31", "python": "3.11.2"},
        "hardware": "2 x AMD EPYC 7763",
        "numerics": {"dtype": "float32", "tf32_convolutions": True, "tf32_matmul": False},
        "date": "2026-11-21T14:00:00+00:00",
        "command": "holdfast evaluate model.source=models:/digits/1 data=digits limit=128 threat.eps=0.1 workers=2",
        "suite": None,
        "beside": None,
        **others,
    }


def digits() -> dict[str, Any]:
    """A sound one with everything: a run, a curve, an attack beyond, another model beside it."""
    sizes = (13, 13, 12, 13, 13, 13, 13, 13, 12, 13)
    lost = ((0, 0), (0, 1), (0, 1), (0, 4), (0, 1), (0, 2), (0, 0), (0, 2), (1, 6), (0, 3))
    rows = [(str(i), n, n - wrong, n - wrong - fooled)
            for i, (n, (wrong, fooled)) in enumerate(zip(sizes, lost, strict=True))]  # fmt: skip
    fooled = {"apgd-ce": 15, "apgd-t": 4, "fab-t": 0, "square": 1}
    one = threat("Linf", 0.1, 128, 127, fooled, rows, beyond={"malt": 1})
    eps = (0, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4)
    given = evaluation(128, 540, 127, [one], [str(i) for i in range(10)])
    given["model"] |= {
        "run_id": "b1946ac92492d2347c6235b4d2611184",
        "version": "digits/1",
        "stated_clean_accuracy": 0.987,
    }
    given["curves"] = [curve("Linf", eps, (127, 125, 122, 118, 111, 99, 82, 45, 18, 5, 0), 128)]
    given["beside"] = {"title": "models:/standard/1", "source": "models:/standard/1"}
    return given


def masked() -> dict[str, Any]:
    """A two-class model whose gradients are masked: doubts, no curve, nothing beyond, an unreadable image."""
    one = threat("Linf", 8 / 255, 200, 192, {"apgd-ce": 0, "apgd-t": 0, "fab-t": 0, "square": 61},
                 [("healthy", 100, 97, 71), ("melanoma", 100, 95, 60)])  # fmt: skip
    given = evaluation(200, 200, 192, [one], ["healthy", "melanoma"], name="stranger-55d0c7e2aa")
    given["model"] |= {"source": "clinic.models:quantised_net", "architecture": "QuantisedNet", "parameters": 2_310_402}
    given["data"] |= {"name": "imagefolder", "input_size": [3, 96, 96], "corrupt": {"melanoma/0031.png": 1}}
    given["command"] = (
        "holdfast evaluate model.source=clinic.models:quantised_net data=folder data.path=scans threat.eps=8/255"
    )
    given["doubts"] = [
        {
            "name": "zero gradients",
            "explanation": "The loss of 187 of 192 images has an input gradient of exactly zero: attacks that follow "
            "gradients have nothing to follow. A rounding or a saturated output usually causes it.",
            "evidence": {"images with a zero gradient": 187, "of": 192, "largest gradient": 3.2e-9},
        },
        {
            "name": "black-box stronger than white-box",
            "explanation": "Square, which sees only outputs, fools 61 images that no attack with gradients does.",
            "evidence": {"fooled by square alone": 61, "fooled by gradients": 0},
        },
        {
            "name": "quantised input",
            "explanation": "Changes smaller than 1/255 never change the output.",
            "evidence": {"smallest change seen": 0.00392156862745098, "layers": ["stem.quantise", "stem.pool"]},
        },
    ]
    return given


def imagenet() -> dict[str, Any]:
    """1,000 classes, 5,000 images, four threats of two norms, a suite with published rows."""
    order = torch.Generator().manual_seed(1)
    chance = torch.rand(1000, generator=order).tolist()
    threats = []
    for norm, eps, keep in (
        ("Linf", 2 / 255, 0.85),
        ("Linf", 4 / 255, 0.66),
        ("Linf", 8 / 255, 0.31),
        ("L2", 2.0, 0.44),
    ):
        rows = []
        for i, c in enumerate(chance):
            clean = min(5, round(1.9 + 4.2 * c))
            rows.append((NAMES[i] if i < len(NAMES) else f"class {i}", 5, clean, min(clean, round(5 * c * keep))))
        clean, robust = sum(row[2] for row in rows), sum(row[3] for row in rows)
        lost = clean - robust
        fooled = {"apgd-ce": lost - lost // 20 - 3, "apgd-t": lost // 20, "fab-t": 2, "square": 1}
        threats.append(threat(norm, eps, 5000, clean, fooled, rows, beyond={"malt": 4}))
    classes = [row["class"] for row in threats[0]["per_class"]]
    given = evaluation(5000, 50000, clean, threats, classes, name="swin-b-0c99d1")
    given["model"] |= {
        "source": "s3://models/robust/swin_base_patch4_window7_224.safetensors",
        "parameters": 87_768_224,
    }
    given["model"]["architecture"] = "swin_base_patch4_window7_224"
    given["data"] |= {"name": "imagenet", "split": "validation", "input_size": [3, 224, 224]}
    eps = [i / 255 for i in (0, 1, 2, 3, 4, 6, 8, 12, 16)]
    given["curves"] = [
        curve("Linf", eps, [clean, 3300, 2700, 2200, 1650, 1100, 850, 300, 90], 5000),
        curve("L2", (0, 0.5, 1, 2, 4, 8), [clean, 3000, 2500, 1500, 600, 40], 5000),
    ]
    given["suite"] = {
        "name": "robustbench_imagenet_linf",
        "source": "RobustBench model_info, https://github.com/RobustBench/robustbench",
        "date": "2025-03-31",
        "published": [
            {"name": "Liu2023Comprehensive_Swin-L", "clean": 78.92, "robust": 59.56},
            {"name": "RodriguezMunoz2024Characterizing_Swin-B", "clean": 77.76, "robust": 51.56},
            {"name": "Salman2020Do_R50", "clean": 64.02, "robust": 34.96},
            {"name": "Engstrom2019Robustness", "clean": 62.56, "robust": 29.22},
            {"name": "Standard_R50", "clean": 76.52, "robust": 0.0},
        ],
    }
    given["command"] = (
        "holdfast evaluate model.source=s3://models/robust/swin_base_patch4_window7_224.safetensors "
        "suite=robustbench_imagenet_linf 'threats=[Linf:2/255,Linf:4/255,Linf:8/255,L2:2]' curve=true workers=8"
    )
    return given


NAMES = ("tench", "goldfish", "great white shark", "tiger shark", "hammerhead", "electric ray", "stingray", "cock",
         "hen", "ostrich", "brambling", "goldfinch", "house finch", "junco", "indigo bunting", "robin", "bulbul",
         "jay", "magpie", "chickadee", "water ouzel", "kite", "bald eagle", "vulture", "great grey owl",
         "European fire salamander", "common newt", "eft", "spotted salamander", "axolotl", "bullfrog")  # fmt: skip


@cache
def nets(steps: int) -> tuple[nn.Module, nn.Module]:
    """``(robust, standard)``: small networks on the digits, with and without adversarial training."""
    x, y = _images("train")
    trained = []
    for adversarial in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.GELU(), nn.Conv2d(24, 32, 3, padding=1, stride=2),
                            nn.GELU(), nn.Flatten(), nn.Linear(512, 10))  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
        for step in range(steps):
            at = torch.arange(step * 128, step * 128 + 128) % len(x)
            seen = ascend(net, x[at], y[at], 0.15, 3) if adversarial else x[at]
            optimizer.zero_grad()
            F.cross_entropy(net(seen), y[at]).backward()
            optimizer.step()
        trained.append(net)
    return trained[0], trained[1]


def _images(split: str) -> tuple[Tensor, Tensor]:
    examples = Digits().split(split)
    every = [torch.tensor(list(examples.image(i).tobytes())) for i in range(len(examples))]
    return torch.stack(every).reshape(-1, 1, 8, 8) / 255, examples.labels


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)[0]


def ascend(net: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    found = x
    for _ in range(steps):
        found = found + 2 * eps / steps * gradient(net, found, y).sign()
        found = (x + (found - x).clamp(-eps, eps)).clamp(0, 1)
    return found


def pictures(count: int = 4, steps: int = 300, eps: float = 0.2) -> list[dict[str, Any]]:
    """Test digits with the gradients and adversarial examples of both ``nets``."""
    examples = Digits().split("test")
    x, y = _images("test")
    x, y = x[:count], y[:count]
    shown: list[dict[str, Any]] = [
        {"id": int(examples.ids[i]), "label": str(int(y[i])), "image": _last(x[i]), "models": []} for i in range(count)
    ]
    for title, net in zip(("models:/digits/1", "models:/standard/1"), nets(steps), strict=True):
        slope, found = gradient(net, x, y), ascend(net, x, y, eps, 20)
        says, then = net(x).argmax(1), net(found).argmax(1)
        for i, one in enumerate(shown):
            fooled = bool(says[i] == y[i]) and bool(then[i] != y[i])
            one["models"].append(
                {
                    "title": title,
                    "prediction": str(int(says[i])),
                    "gradient": _last(slope[i]),
                    "adversarial": _last(found[i]) if fooled else None,
                    "adversarial_prediction": str(int(then[i])) if fooled else None,
                    "distance": float((found[i] - x[i]).abs().max()) if fooled else 0.0,
                }
            )
    return shown


def _last(image: Tensor) -> Any:
    return image.detach().permute(1, 2, 0).numpy()
