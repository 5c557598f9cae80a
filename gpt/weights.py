"""What each matrix is, and where each parameter stands."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from gpt.registry import NORMS

# The parts of the model outside its blocks: the layer that stands for them, before or after.
EMBEDDINGS = ("token_embedding", "position_embedding", "entry")
OUTPUTS = ("final_norm", "head")


@dataclass(frozen=True)
class Weight:
    """A matrix (n_out, n_in), which may be a part of a larger parameter, and its bias.

    role  what it is: embedding, position, query, key, value, out (of the heads), up and down (of
          the feed-forward), head
    """

    role: str
    matrix: Tensor
    bias: Tensor | None = None


def weight_of(role: str, linear: nn.Linear) -> Weight:
    """The one matrix of a linear layer."""
    return Weight(role, linear.weight, linear.bias)


@dataclass(frozen=True)
class Place:
    """One parameter and where it stands.

    layer      0 .. n_layers - 1 for the blocks, -1 for the embeddings, n_layers for the final
               norm and the head
    component  token_embedding, position_embedding, attention, feed_forward, norm, final_norm,
               head; entry and placement for what a placement owns before and in its blocks
    """

    name: str
    parameter: nn.Parameter
    layer: int
    component: str


def places(model: nn.Module) -> Iterator[Place]:
    """Every parameter once; a head tied to the token embedding is counted with the embeddings."""
    seen: set[nn.Parameter] = set()
    blocks = list(model.get_submodule("blocks").children())

    def unseen(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                yield name, parameter

    def outside(parts: tuple[str, ...], layer: int) -> Iterator[Place]:
        for part in parts:
            for prefix, module in model.get_submodule(part).named_modules(prefix=part):
                for name, parameter in unseen(prefix, module):
                    yield Place(name, parameter, layer, part)

    yield from outside(EMBEDDINGS, -1)
    for layer, block in enumerate(blocks):
        for name, parameter in unseen(f"blocks.{layer}", block):
            yield Place(name, parameter, layer, "placement")
        for part, child in block.named_children():
            for prefix, module in child.named_modules(prefix=f"blocks.{layer}.{part}"):
                component = "norm" if isinstance(module, tuple(NORMS.values())) else part
                for name, parameter in unseen(prefix, module):
                    yield Place(name, parameter, layer, component)
    yield from outside(OUTPUTS, len(blocks))


def parameter_table(model: nn.Module) -> list[dict[str, int | str]]:
    """Rows of layer, component and parameters, counted from the modules, in the model's order."""
    counts: Counter[tuple[int, str]] = Counter()
    for place in places(model):
        counts[place.layer, place.component] += place.parameter.numel()
    return [
        {"layer": layer, "component": component, "parameters": count}
        for (layer, component), count in counts.items()
    ]
