"""A penalty for letters: what makes pictures match a prompt may draw its words into them; a text detector says no.

    pip install onnx2torch rapidocr-onnxruntime          # or: pip install --group examples
    python examples/no_letters.py
    python examples/no_letters.py --picture poster.png

The detector is PP-OCRv4's (differentiable binarization, arXiv 1911.08947): an ONNX file of 4.7 MB in the wheel of
rapidocr-onnxruntime (Apache-2.0), of which onnx2torch makes a torch module. Here it works alone, on a picture with
letters; in a run it is one more seat, `referee.Seat("letters", Letters(detector()), weight=0.3)`.

Two things to know. It is content when the detector reads no more at the size of its views, and that is sooner than when
a person does not: without a prior the letters fade a little and stay legible, and at twice the size they are found
again. And bold shapes are letters to it, too: it finds some in every third picture of the pocket world.
"""

from __future__ import annotations

import argparse
import math
from importlib.util import find_spec
from pathlib import Path

import onnx
import torch
from onnx2torch import convert
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import nn

import referee
from referee.contract import Augmentation, Image, Loss, Losses, Prompt, Views
from referee.gradients import resize
from referee.pixels import from_pillow, to_pillow
from referee.randomness import generators
from referee.testing import ToyPrior


def detector() -> nn.Module:
    """(b, 3, S, S) BGR in [-1, 1], S a multiple of 32, to (b, 1, S, S): the log odds that a pixel belongs to text."""
    package = find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        raise SystemExit("The detector is not there: pip install rapidocr-onnxruntime")
    (file,) = Path(package.origin).parent.glob("models/*_det_infer.onnx")
    model = onnx.load(file)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    for node in model.graph.node:
        if node.op_type == "Constant":  # onnx2torch looks for weights among the initializers alone
            node.attribute[0].t.name = node.output[0]
            model.graph.initializer.append(node.attribute[0].t)
    last = nodes.pop()
    assert last.op_type == "Sigmoid"  # of log odds near 100: its slope there is 0, and no gradient would come through
    model.graph.output[0].name = last.input[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return convert(model).eval().requires_grad_(False)


class Letters:
    """The mean over pixels of how far the log odds of text lie above the threshold. Without text it is 0, and so is its
    gradient: it sits out.

    Args:
        net: see `detector`.
        size: side of its views, a multiple of 32.
        threshold: a probability; the detector's own is 0.3.
    """

    def __init__(self, net: nn.Module, size: int = 128, threshold: float = 0.3) -> None:
        self.net, self.input_size, self.least = net, size, math.log(threshold / (1 - threshold))

    def read(self, prompt: Prompt) -> Loss:
        def loss(views: Views) -> Losses:
            return (self.net(views.flip(1) * 2 - 1) - self.least).relu().mean((1, 2, 3))

        return loss


def erase(x: Image, letters: Letters, augmentation: Augmentation, steps: int, views: int) -> tuple[Image, list[float]]:
    """The picture with less to read, and the mean loss at each step. Its latent is a picture of half the sides."""
    prior, loss = ToyPrior(), letters.read(Prompt("anything"))
    z, losses = prior.encode(x), []
    for k in range(steps):
        z.requires_grad_()
        seen = augmentation(prior.decode(z).expand(views, -1, -1, -1), generators(range(views), k, "view"))
        found = loss(resize(seen, letters.input_size)).mean()
        (g,) = torch.autograd.grad(found, z)
        z = (z - 0.02 * g / g.square().mean().sqrt().clamp_min(1e-12)).detach()
        losses.append(float(found.detach()))
    return prior.decode(z), losses


def poster(words: str, side: int) -> Image:
    """Words in the middle of a plain picture with a frame."""
    picture = Pillow.new("RGB", (side, side), "lightgreen")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, side - 1, side - 1), outline="seagreen", width=side // 16)
    font = ImageFont.load_default(1.3 * side / max(map(len, words.split())))
    place = (side / 2, side / 2)
    draw.multiline_text(place, words.replace(" ", "\n"), "darkslateblue", font, "mm", align="center")
    return from_pillow(picture)


def main() -> None:
    options = argparse.ArgumentParser(description="Take the letters out of a picture.")
    options.add_argument("words", nargs="?", default="STOP", help="on the poster, if no picture is given")
    options.add_argument("--picture", help="with letters; its sides are even")
    options.add_argument("--side", type=int, default=64, help="of the poster, in pixels")
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--views", type=int, default=2)
    options.add_argument("--out", default="no_letters.png")
    given = options.parse_args()

    x = from_pillow(given.picture) if given.picture else poster(given.words, given.side)
    letters, parts = Letters(detector()), referee.load(referees=[])
    assert parts.augmentation
    after, losses = erase(x, letters, parts.augmentation, given.steps, given.views)

    to_pillow(after[0]).save(given.out)
    for k in range(0, given.steps, max(1, given.steps // 8)):
        print(f"step {k:4}  letters {losses[k]:.3f}")
    seat = referee.Seat("letters", letters)
    before_after = [referee.score(picture, given.words, [seat])["letters"] for picture in (x, after)]
    print("plain picture: letters {:.3f} -> {:.3f}".format(*before_after))
    print(given.out)


if __name__ == "__main__":
    main()
