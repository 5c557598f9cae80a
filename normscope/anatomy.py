"""Where the parts of a model are: blocks, their branches, norms and sums, and what lies outside.

An anatomy points at parts by name; it neither wraps nor copies the model.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

# Components outside the blocks: the layer that stands for them, before or after.
BEFORE = ("token_embedding", "position_embedding", "entry")
AFTER = ("final_norm", "head")
BRANCHES = ("attention", "feed_forward")
KEYS = ("blocks", *BRANCHES, "sums", "stream", "before", "after")  # of what is given

# What a block calls its branches: modules that a branch runs through, the last gives its output.
NAMES = {
    "attention": (
        ("attention.self", "attention.output.dense"),  # BERT
        ("self_attn",),  # Llama, Qwen, Mistral, Gemma, OLMo, Phi; torch.nn.TransformerEncoderLayer
        ("attn",),  # GPT-2, MPT, timm
        ("self_attention",),  # Falcon, torchvision
        ("attention",),  # GPT-NeoX (Pythia), this project's GPT
        ("att",),  # Raschka's book
    ),
    "feed_forward": (
        ("intermediate", "output.dense"),  # BERT
        ("mlp",),  # GPT-2, GPT-NeoX, Llama and their kin
        ("feed_forward",),  # this project's GPT
        ("ffn",),  # MPT
        ("linear1", "linear2"),  # torch.nn.TransformerEncoderLayer
        ("fc1", "fc2"),  # OPT
        ("ff",),  # Raschka's book
    ),
}
WORDS = {"attention": r"attention|attn", "feed_forward": r"feed_?forward|mlp|ffn|moe"}


@dataclass(frozen=True)
class Place:
    """One parameter and where it stands.

    name       in the model
    tensor     inside its block; as `name` outside the blocks
    layer      0 .. L - 1 for the L blocks, -1 for what comes before them, L for what comes after
    component  token_embedding, position_embedding, entry (the rest of what comes before);
               attention, feed_forward, norm, placement (the rest of a block); final_norm, head
    """

    name: str
    tensor: str
    parameter: nn.Parameter
    layer: int
    component: str


@dataclass(frozen=True)
class BlockParts:
    """The parts of one block, by their names in the model; empty where it has none.

    attention     modules that the branch runs through, of which the last gives its output
    feed_forward  the same
    norms         all that stand in the block, also inside a branch
    sums          modules (x, f) -> x + f of the attention and the feed-forward branch; one that
                  has an attribute `on` which is False gives f alone
    """

    name: str
    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    norms: tuple[str, ...]
    sums: tuple[str, ...]

    def component(self, parameter: str) -> str:
        """Where in the block the parameter of this full name belongs."""
        if parameter.rpartition(".")[0] in self.norms:
            return "norm"
        for branch in BRANCHES:
            if any(lies_in(parameter, part) for part in getattr(self, branch)):
                return branch
        return "placement"


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Where the parts of `model` are; see `anatomy_of`.

    blocks  in the order in which the stream passes them
    before  names of modules or parameters outside the blocks, each with its component
    after   the same
    stream  the method of a block that reads the stream (B, T, emb_dim) from its state; None: the
            state is the stream, or a tuple that begins with it
    """

    model: nn.Module = field(repr=False)
    blocks: tuple[BlockParts, ...]
    before: Mapping[str, str]
    after: Mapping[str, str]
    stream: str | None = None

    def read_stream(self, block: nn.Module, state: Any) -> Tensor:
        """The tensor (B, T, emb_dim) of a block's state that is measured as the stream."""
        if self.stream is not None:
            return getattr(block, self.stream)(state)
        return first(state)

    def places(self) -> Iterator[Place]:
        """Every parameter once, from the embeddings to the head.

        One that is shared, as by a tied head, is counted where it comes first.
        """
        seen: set[nn.Parameter] = set()
        for name, parameter, layer, component in self._named():
            if parameter not in seen:
                seen.add(parameter)
                inside = self.blocks[layer].name + "." if 0 <= layer < len(self.blocks) else ""
                yield Place(name, name.removeprefix(inside), parameter, layer, component)

    def _named(self) -> Iterator[tuple[str, nn.Parameter, int, str]]:
        for part, component in self.before.items():
            for name, parameter in parameters_in(self.model, part):
                yield name, parameter, -1, component
        for layer, block in enumerate(self.blocks):
            for name, parameter in parameters_in(self.model, block.name):
                yield name, parameter, layer, block.component(name)
        for part, component in self.after.items():
            for name, parameter in parameters_in(self.model, part):
                yield name, parameter, len(self.blocks), component


def anatomy_of(model: nn.Module, **names: Any) -> Anatomy:
    """Find the parts of a model.

    What `names` says holds; then what the model says itself, by an attribute `anatomy` that maps
    the same keys to names; the rest is found:

    blocks        the list that holds the blocks, such as "transformer.h": else, of all ModuleLists
                  and Sequentials whose modules have attention or are of one class, the longest
                  with attention, or the longest
    attention     the branches, inside a block (several names: the modules that the branch runs
    feed_forward  through): else by the names in NAMES, or by a word in name or class (WORDS)
    sums          modules (x, f) -> x + f, inside a block: else none
    stream        see `Anatomy`
    before        names of what lies outside the blocks, each mapped to its component: else by
    after         the order in which the model lists its parameters, embeddings always before

    Norms are found by their names and classes. The module of a branch is taken to give what the
    branch adds; one that also adds it to the stream, as in BLOOM, needs other names.

        anatomy_of(model, blocks="tower.layers", attention="mixer", feed_forward=("up", "down"))

    Raises ValueError where no blocks are found, or a name is none of the model's.
    """
    own = getattr(model, "anatomy", None)
    given = (dict(own) if isinstance(own, Mapping) else {}) | names
    for key in given:
        if key not in KEYS:
            raise ValueError(f"{key}: no part of an anatomy; choose from {', '.join(KEYS)}")
    root = given["blocks"] if "blocks" in given else find_blocks(model)
    if root not in dict(model.named_modules()):
        raise ValueError(f"blocks: {kind(model)} has no part {root!r}")
    blocks = tuple(
        block_parts(joined(root, index), block, given)
        for index, block in model.get_submodule(root).named_children()
    )
    for part in (*BRANCHES, "sums"):
        if part in given and blocks and not any(getattr(block, part) for block in blocks):
            raise ValueError(f"{part}: no block of {kind(model)} has {given[part]!r}")
    before, after = outside(model, root)
    return Anatomy(
        model,
        blocks,
        given.get("before", before),
        given.get("after", after),
        given.get("stream"),
    )


def parameter_table(model: nn.Module) -> list[dict[str, int | str]]:
    """Rows of layer, component and parameters, counted from the modules, in the model's order."""
    counts: Counter[tuple[int, str]] = Counter()
    for place in anatomy_of(model).places():
        counts[place.layer, place.component] += place.parameter.numel()
    return [
        {"layer": layer, "component": component, "parameters": count}
        for (layer, component), count in counts.items()
    ]


def find_blocks(model: nn.Module) -> str:
    """The name of the list that holds the blocks, see `anatomy_of`."""
    lists = {
        name: attending(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and may_be_blocks(module)
    }
    if not lists:
        raise ValueError(
            f"no blocks found in {kind(model)}: it has no list of modules of one class; "
            'name it, as in anatomy_of(model, blocks="encoder.layers")'
        )
    return max(lists, key=lambda name: (any(lists[name]), len(lists[name])))


def may_be_blocks(modules: nn.ModuleList | nn.Sequential) -> bool:
    """Whether all have attention, or all are of one class and some have or there are several."""
    alike = len({type(module) for module in modules}) == 1
    attend = attending(modules)
    return has_parameters(modules) and (all(attend) or (alike and (any(attend) or len(attend) > 1)))


def attending(modules: nn.ModuleList | nn.Sequential) -> list[bool]:
    """Which of the modules have attention; in place of one there may be None."""
    return [module is not None and bool(find_branch(module, "attention")) for module in modules]


def block_parts(prefix: str, block: nn.Module, given: Mapping[str, Any]) -> BlockParts:
    """The parts of the block called `prefix`; what `given` names and it lacks is left out."""
    inside = {name for name, _ in block.named_modules()}

    def full(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(joined(prefix, name) for name in names)

    def part(key: str, found: tuple[str, ...]) -> tuple[str, ...]:
        names = as_tuple(given[key]) if key in given else found
        return full(names) if inside.issuperset(names) else ()

    norms = tuple(name for name, module in block.named_modules() if is_norm(name, module))
    return BlockParts(
        prefix,
        part("attention", find_branch(block, "attention")),
        part("feed_forward", find_branch(block, "feed_forward")),
        full(norms),
        part("sums", ()),
    )


def find_branch(block: nn.Module, branch: str) -> tuple[str, ...]:
    """Names, inside the block, of the modules that the branch runs through; empty: not found."""
    inside = {name for name, _ in block.named_modules()}
    for names in NAMES[branch]:
        if inside.issuperset(names):
            return names
    for name, child in block.named_children():
        called = f"{name} {kind(child)}".lower()
        if re.search(WORDS[branch], called) and has_parameters(child) and not is_norm(name, child):
            return (name,)
    return ()


def is_norm(name: str, module: nn.Module) -> bool:
    """Whether it is a norm, by its class or its name: a module that owns all its parameters."""
    leaf = name.rpartition(".")[2].lower()
    named = "norm" in kind(module).lower() or "norm" in leaf or re.match(r"ln(_|\d|$)", leaf)
    own = len(list(module.parameters(recurse=False)))
    return bool(named) and own == len(list(module.parameters())) and kind(module) != "Identity"


def has_parameters(module: nn.Module) -> bool:
    """Whether it has any parameter, its own or inside."""
    return next(module.parameters(), None) is not None


def outside(model: nn.Module, blocks: str) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters before and after the blocks, each with its component."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    passed = False
    for name, _ in model.named_parameters(remove_duplicate=False):
        if lies_in(name, blocks):
            passed = True
            continue
        owner = name.rpartition(".")[0]
        module = model.get_submodule(owner)
        if is_norm(owner, module):
            # OPT lists its final norm before its blocks.
            last = passed or re.search(r"final|norm_f$|ln_f$", owner.lower())
            (after if last else before)[name] = "final_norm" if last else "entry"
        elif isinstance(module, nn.Embedding) or ("emb" in name.lower() and not passed):
            position = re.search(r"pos|wpe", name.lower())
            before[name] = "position_embedding" if position else "token_embedding"
        else:
            (after if passed else before)[name] = "head" if passed else "entry"
    return before, after


def parameters_in(model: nn.Module, part: str) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a module, or the one parameter, of this name, by their full names."""
    owner, _, leaf = part.rpartition(".")
    own = dict(model.get_submodule(owner).named_parameters(recurse=False))
    if leaf in own:
        yield part, own[leaf]
    else:
        yield from model.get_submodule(part).named_parameters(part, remove_duplicate=False)


def lies_in(name: str, part: str) -> bool:
    """Whether a module or parameter is the part or inside it; all lies in "", the model."""
    return part in ("", name) or name.startswith(f"{part}.")


def joined(part: str, name: str) -> str:
    """The full name of what is called `name` inside a part."""
    return f"{part}.{name}" if part else name


def first(state: Any) -> Tensor:
    """The state itself, or the first of a tuple."""
    return state if isinstance(state, Tensor) else state[0]


def as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """One name is a tuple of one."""
    return (names,) if isinstance(names, str) else tuple(names)


def kind(module: nn.Module) -> str:
    """The name of its class."""
    return type(module).__name__
