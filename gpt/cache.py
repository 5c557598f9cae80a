"""What a model keeps of the tokens that it has read, so that the next one is computed alone."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Reading:
    """How far the texts of a batch have been read; a text may begin after padding.

    start, stop  columns of the batch that are read now
    places       of their tokens, (B, T), counted in each text from 0; padding has negative ones
    key_places   of all that have been read, those among them, (B, stop)
    """

    def __init__(self, padding: Sequence[int], capacity: int, device: torch.device) -> None:
        """At the start; `padding`: tokens before each text; `capacity`: columns at the most."""
        self.padding = torch.tensor(padding, device=device)
        self.capacity = capacity
        self.start = self.stop = 0
        self.places = self.key_places = self.padding.new_empty(len(padding), 0)

    def advance(self, count: int) -> None:
        """Go on to the next `count` columns."""
        self.start, self.stop = self.stop, self.stop + count
        columns = torch.arange(self.stop, device=self.padding.device)
        self.key_places = columns - self.padding[:, None]
        self.places = self.key_places[:, self.start :]


class LayerCache:
    """Keys and values of one layer as its heads read them, in memory taken once for all columns."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.pair: tuple[Tensor, Tensor] | None = None  # each (B, kv_heads, capacity, head_dim)

    @property
    def places(self) -> Tensor:
        """See Reading."""
        return self.reading.places

    def extend(self, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values, those of the columns that are read now at their end, and their places.

        None before the `window` of the first of these columns, where there is a window.
        """
        reading = self.reading
        if self.pair is None:
            kept = (*key.shape[:2], reading.capacity, key.shape[-1])
            self.pair = key.new_empty(kept), value.new_empty(kept)
        for all_columns, new in zip(self.pair, (key, value), strict=True):
            all_columns[:, :, reading.start : reading.stop] = new
        first = max(0, reading.start + 1 - window) if window else 0
        keys, values = (kept[:, :, first : reading.stop] for kept in self.pair)
        return keys, values, reading.key_places[:, first:]
