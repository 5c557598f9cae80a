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
    """Keys and values of one layer as its heads read them, each (B, kv_heads, columns, head_dim).

    Of a layer without a window those of all columns, in memory taken once; of one with a window
    those that the next token sees.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.pair: tuple[Tensor, Tensor] | None = None

    @property
    def places(self) -> Tensor:
        """See Reading."""
        return self.reading.places

    def extend(self, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values, those of the columns that are read now at their end, and their places.

        None before the `window` of the first of these columns, where there is a window.
        """
        reading = self.reading
        if 0 < window < reading.capacity:
            keys, values = self.slide(key, value, window)
        else:
            keys, values = self.fill(key, value)
        return keys, values, reading.key_places[:, reading.stop - keys.shape[2] :]

    def fill(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All that were read."""
        reading = self.reading
        if self.pair is None:
            kept = (*key.shape[:2], reading.capacity, key.shape[-1])
            self.pair = key.new_empty(kept), value.new_empty(kept)
        keys, values = self.pair
        keys[:, :, reading.start : reading.stop] = key
        values[:, :, reading.start : reading.stop] = value
        return keys[:, :, : reading.stop], values[:, :, : reading.stop]

    def slide(self, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """Those kept, then the new; kept are the last `window` - 1, a copy, so that no more is."""
        if self.pair is not None:
            key, value = torch.cat((self.pair[0], key), 2), torch.cat((self.pair[1], value), 2)
        first = max(0, key.shape[2] - window + 1)
        self.pair = key[:, :, first:].clone(), value[:, :, first:].clone()
        return key, value
