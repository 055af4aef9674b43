"""The referee itself: how far the best-matching pixels of a view are from a colour."""

from __future__ import annotations

from referee.contract import Loss, Losses, Prompt, Views


class ColourReferee:
    """Keeps `referee.contract.Referee`; nothing has to be inherited.

    Args:
        colour: red, green and blue in [0, 1].
        share: of each view's pixels, in (0, 1]: those nearest to the colour count, the others are free.
    """

    input_size = 64

    def __init__(self, colour: tuple[float, float, float], share: float = 0.25) -> None:
        self.colour, self.share = colour, share

    def read(self, prompt: Prompt) -> Loss:
        """Called once per run. This referee knows what it likes, and leaves the words to the others."""

        def loss(views: Views) -> Losses:
            """(b, 3, 64, 64) in [0, 1] to (b,): the mean squared distance in RGB, in [0, 1]."""
            target = views.new_tensor(self.colour)[:, None, None]
            distances = (views - target).square().mean(dim=1).flatten(1)
            count = max(1, round(self.share * distances.shape[1]))
            return distances.topk(count, dim=1, largest=False).values.mean(dim=1)

        return loss
