"""The instrument in a training loop of your own."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from torch import Tensor, nn

from normscope.anatomy import Anatomy, anatomy_of
from normscope.probes import Probes
from normscope.stats import Row
from normscope.streams import evaluating

COLUMNS = ("step", *Row._fields)


def attach(
    model: nn.Module,
    path: str | Path | None = None,
    every: int = 50,
    anatomy: Anatomy | None = None,
) -> "Scope":
    """Measure a model in a training loop of your own: two lines, and nothing stays on the model.

    path     of a CSV file with the columns step, layer, component, stat and value, which must not
             exist; None: the rows are returned alone
    every    steps from one probed step to the next; gradient norms are measured on each step
    anatomy  where the parts of the model are, if `anatomy_of(model)` does not find them

    Raises ValueError where no blocks are found, FileExistsError for a file that exists.

    >>> import torch, normscope
    >>> layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    >>> model = torch.nn.TransformerEncoder(layer, num_layers=3)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    >>> scope = normscope.attach(model)
    >>> for step in range(2):
    ...     x, y = torch.randn(2, 4, 8, 16)
    ...     loss = lambda: torch.nn.functional.mse_loss(model(x), y)
    ...     loss().backward()
    ...     with scope.step(loss) as rows:  # measured before what stands inside, and after it
    ...         optimizer.step()
    ...     optimizer.zero_grad()
    ...     norms = [row.layer for row in rows if row[1:3] == ("block", "grad_norm")]
    ...     print(step, norms, sorted({row.stat for row in rows})[:3])
    0 [0, 1, 2] ['activation_max', 'activation_rms', 'activation_variance']
    1 [0, 1, 2] ['grad_norm', 'grad_rms']

    In a notebook `pandas.DataFrame(rows)` is the table. A folder that holds the file as
    `gradients.csv` is drawn by `python -m experiments.plots FOLDER`.
    """
    return Scope(Probes(anatomy or anatomy_of(model)), None if path is None else Path(path), every)


class Scope:
    """The probes of one model, and where their rows go; see `attach`. Closes its file at the end
    of a `with` block, or by `close`.

    done  steps measured so far: the next row's step
    """

    def __init__(self, probes: Probes, path: Path | None, every: int) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1")
        self.probes, self.every, self.done = probes, every, 0
        self.file: IO[str] | None = None
        if path is not None:
            if path.exists():
                raise FileExistsError(f"{path} exists: remove it, or give another name")
            self.file = path.open("x", encoding="utf-8", newline="")
            self._write_lines([COLUMNS])

    @contextmanager
    def step(self, loss: Callable[[], Tensor] | None = None) -> Iterator[list[Row]]:
        """Around clipping and the optimizer's step, once the gradients are there.

        Gives the rows of the step: gradient norms, and on a probed step what `loss` shows and what
        the update did; these last once the block is left.

        loss  takes a batch through the model and returns its mean loss, (): one forward and
              backward pass more on probed steps, in eval mode. None: activations, attention and
              stream gradients are not measured
        """
        probing = self.done % self.every == 0
        norms = self.probes.norms
        rows = norms.gradient_rows(norms.gradients_on_host(norms.gradients()), each=probing)
        if probing and loss is not None:
            rows += self.probes.on_step(loss)
        if probing:
            self.probes.before_update()
        yield rows
        if probing:
            rows += self.probes.after_update()
        self._write(rows)
        self.done += 1

    def end(self, loss: Callable[[], Tensor], windows: Iterable[Tensor] = ()) -> list[Row]:
        """What the trained model loses without each block; and the gradients of single windows.

        loss     the mean loss over validation data, the same each time; evaluated L + 1 times
        windows  the mean loss of each single window, computed as it is asked for
        """

        @torch.no_grad()
        def number() -> float:
            with evaluating(self.probes.anatomy.model):
                return float(loss())

        rows = self.probes.at_end(number, number(), windows)
        self._write(rows)
        return rows

    def close(self) -> None:
        """Close the file, if there is one."""
        if self.file is not None:
            self.file.close()

    def __enter__(self) -> "Scope":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, rows: Sequence[Row]) -> None:
        self._write_lines(
            [(self.done, *row[:-1], format(row.value, ".9g")) for row in rows]  # as float32 has
        )

    def _write_lines(self, lines: Sequence[Sequence[Any]]) -> None:
        if self.file is not None:
            csv.writer(self.file, lineterminator="\n").writerows(lines)
            self.file.flush()
