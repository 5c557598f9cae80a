"""What a block computes, as a graph that is recorded while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from normscope.anatomy import BRANCHES, find_branch, is_norm
from normscope.streams import Inputs, Options, evaluating

SUMS = ("add", "__add__", "__radd__", "add_", "__iadd__")
PRODUCTS = ("mul", "__mul__", "__rmul__", "mul_", "__imul__")


@dataclass(frozen=True)
class Node:
    """One value of the graph and what makes it.

    kind    input; output; norm; attention or feed_forward, a whole branch; weights, any other
            layer with parameters; sum; scale, a product with what does not depend on the inputs;
            view, what moves or drops numbers and changes none; function, all else
    label   the name of the module, of the function, or of the parameter that scales
    reads   places in the graph of the nodes whose values it is made from
    branch  attention or feed_forward, where it is a part of one that is open
    factor  of a scale, where it is a number
    make    from the values that it reads to its own
    """

    kind: str
    label: str
    reads: tuple[int, ...] = ()
    branch: str = ""
    factor: float | None = None
    make: Callable[..., Any] = lambda value: value


@dataclass(frozen=True)
class Graph:
    """The nodes, each after those that it reads. Called with the block's inputs, it gives the
    block's outputs, by its nodes alone.
    """

    nodes: tuple[Node, ...]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given, values = iter(inputs), list[Any]()
        for node in self.nodes:
            read = [values[place] for place in node.reads]
            values.append(next(given) if node.kind == "input" else node.make(*read))
        return tuple(
            value for node, value in zip(self.nodes, values, strict=True) if node.kind == "output"
        )

    def edges(self) -> list[tuple[int, int]]:
        """From which place to which, past the views."""
        return [
            (source, place)
            for place, node in enumerate(self.nodes)
            if node.kind != "view"
            for source in self.sources(place)
        ]

    def sources(self, place: int) -> list[int]:
        """The places of what a node reads, past the views, each once."""
        found: dict[int, None] = {}
        for read in self.nodes[place].reads:
            found |= dict.fromkeys(self.sources(read) if self.is_view(read) else [read])
        return list(found)

    def is_view(self, place: int) -> bool:
        """Whether the node there is one that no reader needs to see."""
        return self.nodes[place].kind == "view"


def trace(block: nn.Module, *inputs: Any, **options: Any) -> Graph:
    """The graph of what `block` does with these inputs; it is called once, in eval mode.

    Nodes are the norms, the branches and other layers, each as a whole, and the functions that
    PyTorch is asked for between them. A branch is opened, so that its parts are nodes, where it has
    norms or parameters beside its layers. What does not depend on the inputs is constant. Tensors
    that the block is given, in tuples too, are the graph's inputs.

    >>> import torch, normscope
    >>> layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    >>> graph = normscope.trace(layer, torch.randn(4, 8, 16))
    >>> [node.kind for node in graph.nodes if node.kind != "view"][:5]
    ['input', 'attention', 'sum', 'norm', 'feed_forward']
    """
    recorder = Recorder(block)
    map_aggregate((inputs, options), recorder.enter)
    with torch.no_grad(), evaluating(block), recorder.hooked(), recorder:
        output = block(*inputs, **options)
    map_aggregate((output,), recorder.leave)
    return recorder.graph()


@dataclass(frozen=True)
class Slot:
    """Among the arguments of a call: the value that the node reads at this place."""

    place: int


class Recorder(TorchFunctionMode):
    """Records each call that reads what depends on the inputs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.nodes: list[Node] = []
        self.values: list[Any] = []  # of the nodes
        self.places: dict[int, int] = {}  # of tensors, by their id
        # Parameters, and what is made of them alone: kept, so that no id is given again.
        self.names: dict[int, tuple[str, Tensor]] = {
            id(parameter): (name, parameter) for name, parameter in block.named_parameters()
        }
        self.branch = ""  # that is open
        self.running: nn.Module | None = None  # that is one node

    def graph(self) -> Graph:
        """The inputs, the outputs, and what these depend on."""
        needed = {i for i, node in enumerate(self.nodes) if node.kind in ("input", "output")}
        for i in reversed(range(len(self.nodes))):
            if i in needed:
                needed |= set(self.nodes[i].reads)
        places = {old: new for new, old in enumerate(sorted(needed))}
        return Graph(
            tuple(
                replace(self.nodes[old], reads=tuple(places[i] for i in self.nodes[old].reads))
                for old in places
            )
        )

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within: modules that are one node are recorded, open branches are known."""
        handles: list[RemovableHandle] = []
        branches = {name: b for b in BRANCHES for name in find_branch(self.block, b)}
        for name, module in self.block.named_modules():
            kind = "norm" if is_norm(name, module) else branches.get(name, "weights")
            before: Callable[..., None]
            after: Callable[..., None]
            if name in branches and has_own(module):
                before, after = partial(self.open, branches[name]), self.close
            elif kind != "weights" or is_layer(module):
                before, after = self.begin, partial(self.end, kind, name)
            else:
                continue
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def open(self, branch: str, module: nn.Module, inputs: Inputs) -> None:
        """An open branch begins."""
        self.branch = branch

    def close(self, module: nn.Module, inputs: Inputs, options: Options, output: Any) -> None:
        """It ends."""
        self.branch = ""

    def begin(self, module: nn.Module, inputs: Inputs) -> None:
        """A module that is one node begins, unless it is a part of another."""
        self.running = self.running or module

    def end(
        self,
        kind: str,
        name: str,
        module: nn.Module,
        inputs: Inputs,
        options: Options,
        output: Any,
    ) -> None:
        """It ends."""
        if module is self.running:
            self.running = None
            self.record(kind, name.rpartition(".")[2], module, (inputs, options), output)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Options | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.running is None:
            self.record("", func.__name__, func, (args, kwargs or {}), output)
        return output

    def enter(self, value: Any) -> None:
        """What the block is given."""
        if isinstance(value, Tensor):
            self.add(Node("input", f"input {len(self.nodes) + 1}"), value)

    def leave(self, value: Any) -> None:
        """What the block gives."""
        if isinstance(value, Tensor) and id(value) in self.places:
            number = sum(node.kind == "output" for node in self.nodes) + 1
            self.nodes.append(Node("output", f"output {number}", (self.places[id(value)],)))

    def record(self, kind: str, label: str, call: Any, arguments: Any, output: Any) -> None:
        """A call, and what came of it."""
        read: dict[int, None] = {}  # places
        constants: list[Any] = []

        def slot(value: Any) -> Any:
            if not isinstance(value, Tensor) or id(value) not in self.places:
                constants.append(value)
                return value
            read.setdefault(self.places[id(value)])
            return Slot(list(read).index(self.places[id(value)]))

        arguments = map_aggregate(arguments, slot)
        names = [self.names[id(c)][0] for c in constants if id(c) in self.names]
        made = tensors_in(output)
        if not read:
            self.names |= {id(tensor): (name, tensor) for name in names[:1] for tensor in made}
            return
        if not made:
            return
        factor = None
        if not kind:
            kind, factor = self.kind_of(label, [*read], constants, made)
            label = names[0] if kind == "scale" and names else label
        make = partial(called, call, arguments)
        self.add(Node(kind, label, tuple(read), self.branch, factor, make), output)
        whole = len(self.nodes) - 1
        for number, part in enumerate(output if not isinstance(output, Tensor) else ()):
            self.add(Node("view", label, (whole,), self.branch, None, itemgetter(number)), part)

    def add(self, node: Node, value: Any) -> None:
        """A node and its value."""
        if isinstance(value, Tensor):
            self.places[id(value)] = len(self.nodes)
        self.nodes.append(node)
        self.values.append(value)

    def kind_of(
        self, name: str, read: list[int], constants: list[Any], made: list[Tensor]
    ) -> tuple[str, float | None]:
        """The kind of a function's node; of a scale by a number, the number."""
        if len(read) == 2 and name in SUMS:
            return ("sum", None) if not constants else ("function", None)
        if len(read) == 1 and name in PRODUCTS:
            (by,) = constants
            return "scale", None if isinstance(by, Tensor) else float(by)
        if len(read) == 1 and all(moves(self.values[read[0]], tensor) for tensor in made):
            return "view", None
        return "function", None


def has_own(branch: nn.Module) -> bool:
    """Whether a branch has norms, or parameters that belong to none of its layers."""
    return any(
        is_norm(name, module)
        or (not is_layer(module) and next(module.parameters(recurse=False), None) is not None)
        for name, module in branch.named_modules()
    )


def is_layer(module: nn.Module) -> bool:
    """Whether a module with parameters is one of PyTorch's, or has no modules inside."""
    of_torch = type(module).__module__.startswith("torch.nn.modules.")
    own = next(module.parameters(recurse=False), None) is not None
    return own and (of_torch or not any(module.children()))


def tensors_in(value: Any) -> list[Tensor]:
    """A tensor itself, or those in a tuple."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return [part for part in parts if isinstance(part, Tensor)]


def moves(value: Any, made: Tensor) -> bool:
    """Whether all numbers of `made` are among those of `value`."""
    return isinstance(value, Tensor) and bool(torch.isin(made, value).all())


def called(call: Callable[..., Any], arguments: Any, *read: Any) -> Any:
    """The call with its arguments, in which values stand for slots."""

    def filled(value: Any) -> Any:
        return read[value.place] if isinstance(value, Slot) else value

    args, kwargs = map_aggregate(arguments, filled)
    return call(*args, **kwargs)
