"""What a model keeps of the tokens that it has read, so that the next one is computed alone."""

import torch
from torch import Tensor


class Reading:
    """How far the texts of a batch have been read; a text may begin after padding.

    places      of the tokens that are read now, (B, T), counted in each text from 0; padding has
                negative ones
    key_places  of all that have been read, those among them, (B, S)
    """

    def __init__(self, padding: Tensor) -> None:
        """At the start; `padding` (B,): tokens before each text."""
        self.padding = padding
        self.places = self.key_places = torch.empty(len(padding), 0, dtype=torch.long)

    def advance(self, count: int) -> None:
        """Go on to the next `count` tokens."""
        before = self.key_places.shape[1]
        columns = torch.arange(before + count, device=self.padding.device)
        self.key_places = columns - self.padding[:, None]
        self.places = self.key_places[:, before:]


class LayerCache:
    """Keys and values of one layer, each (B, kv_heads, S, head_dim), as the heads read them."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    @property
    def places(self) -> Tensor:
        """See Reading."""
        return self.reading.places

    @property
    def key_places(self) -> Tensor:
        """See Reading."""
        return self.reading.key_places

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, those of the tokens that are read now at their end."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat((self.key, key), dim=2), torch.cat((self.value, value), dim=2)
        self.key, self.value = key, value
        return key, value
