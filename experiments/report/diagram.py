"""The diagram of a block, laid out from its traced graph and drawn as SVG.

From the bottom up, as in the papers. The longest way from the input to the output is a straight
line; what leads past it stands on the left, a second stream on the right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from markupsafe import Markup

from normscope import Graph, Node

ROW, GAP = 30, 20  # heights of a box and of what is left between two
WIDE, LANE = 92, 52  # widths of a box, and from one column to the next on the left
STREAM = 78  # from one column to the next on the right
PART = 80  # width of a box inside a branch
FRAME = 168  # width of an open branch at the least: its name stands left of what leaves it
SMALL = 11  # radius of a sum
LETTER = 6.6  # width
MARGIN = 12
TIMES = "\N{MULTIPLICATION SIGN}"
WHOLE = ("open", "attention", "feed_forward")
NAMES = {
    "attention": "Attention",
    "feed_forward": "Feed-forward",
    "scaled_dot_product_attention": "softmax",
    "qkv": "Q, K, V",
    "out_proj": "projection",
    "fc_in": "linear",
    "fc_out": "linear",
    "gelu": "GELU",
}


def name_of(node: Node) -> str:
    """What stands in a node's box."""
    if node.kind == "sum":
        return "+"
    if node.kind == "scale":
        learned = node.label.rpartition(".")[2].replace("weight_", "w_")  # as in the equations
        return f"{TIMES} {learned if node.factor is None else node.label}"
    if node.kind == "norm":
        of = [part for part in node.label.split("_") if part != "norm" and not part.isdigit()]
        return " ".join(["Norm", *of] if node.branch else ["Norm"])
    return NAMES.get(node.label, node.label)


def size_of(node: Node) -> tuple[float, float]:
    """Width and height of what is drawn of a node."""
    if node.kind == "sum":
        return 2 * SMALL, 2 * SMALL
    if node.kind == "scale":
        return 14 + LETTER * len(name_of(node)), ROW - 6
    return WIDE, ROW - 10 if node.kind in ("input", "output") else ROW


def part_width(node: Node) -> float:
    """The width of a node inside an open branch."""
    return max(PART, size_of(node)[0]) if node.kind == "scale" else PART


@dataclass(eq=False)
class Item:
    """What is laid out as a whole: a node, or a branch that is open.

    places  of its nodes in the graph
    row     from the bottom; column: 0 on the straight line, below 0 on the left
    x, y    of its centre, from the straight line and from the bottom
    """

    places: list[int]
    width: float
    height: float
    row: int = 0
    column: int = 0
    x: float = 0.0
    y: float = 0.0
    reads: list["Item"] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)  # inside an open branch

    @property
    def top(self) -> float:
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2


class Diagram:
    """A graph with a place for each item."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.items = self.make_items()
        self.read_by: dict[Item, list[Item]] = {item: [] for item in self.items}
        for item in self.items:
            for read in item.reads:
                self.read_by[read].append(item)
        self.lanes: dict[tuple[Item, Item], int] = {}  # of edges that lead past the straight line
        self.set_rows()
        self.set_columns()
        self.set_positions()

    def kind(self, item: Item) -> str:
        """The kind of a node; of an open branch, "open"."""
        return "open" if item.rows else self.graph.nodes[item.places[0]].kind

    # ---- Items and their rows

    def make_items(self) -> list[Item]:
        """An item for each node but the views and each open branch, in the graph's order."""
        by_key: dict[object, Item] = {}
        owner: dict[int, Item] = {}
        for place, node in enumerate(self.graph.nodes):
            if node.kind != "view":
                item = by_key.setdefault(node.branch or place, Item([], *size_of(node)))
                item.places.append(place)
                owner[place] = item
        for item in by_key.values():
            outside = [
                owner[source]
                for place in item.places
                for source in self.graph.sources(place)
                if owner[source] is not item
            ]
            item.reads = list(dict.fromkeys(outside))
            if self.graph.nodes[item.places[0]].branch:
                self.open(item)
        return list(by_key.values())

    def open(self, item: Item) -> None:
        """Rows inside a branch, each node above those that it reads."""
        rows: dict[int, int] = {}
        for place in item.places:
            inside = [rows[source] for source in self.graph.sources(place) if source in rows]
            rows[place] = 1 + max(inside, default=-1)
        item.rows = [[p for p in rows if rows[p] == row] for row in range(max(rows.values()) + 1)]
        of_rows = [sum(part_width(self.graph.nodes[p]) + 6 for p in row) for row in item.rows]
        item.width = max(FRAME, max(of_rows) + 14)
        item.height = len(item.rows) * (ROW + GAP) + 24

    def set_rows(self) -> None:
        """Each item above all that it reads, the outputs at the top."""
        for item in self.items:
            item.row = 1 + max((read.row for read in item.reads), default=-1)
        last = max(item.row for item in self.items)
        for item in self.items:
            if self.kind(item) == "output":
                item.row = last

    # ---- Columns

    def longest_way(self, start: Item, within: Sequence[Item]) -> list[Item]:
        """From an item on, through as many others of `within` as can be, and through branches."""

        def length(way: list[Item]) -> float:
            return sum(1 + 0.5 * (self.kind(item) in WHOLE) for item in way)

        best: dict[Item, list[Item]] = {}
        for item in reversed(self.items):
            if item in within:
                onward = [best[after] for after in self.read_by[item] if after in best]
                best[item] = [item, *max(onward, key=length, default=[])]
        return best[start]

    @cached_property
    def line(self) -> list[Item]:
        """The items on the straight line."""
        first = next(item for item in self.items if self.kind(item) == "input")
        ends = [item for item in self.items if self.kind(item) == "output"]
        return self.longest_way(first, self.before([ends[0]]))

    def before(self, items: Sequence[Item]) -> list[Item]:
        """The items, and all that they depend on."""
        found = set(items)
        for item in reversed(self.items):
            if item in found:
                found |= set(item.reads)
        return [item for item in self.items if item in found]

    def of_another_stream(self) -> list[Item]:
        """Those beside the line that depend on another input, or on which another output does."""
        inputs = [item for item in self.items if self.kind(item) == "input"][1:]
        outputs = [item for item in self.items if self.kind(item) == "output"][1:]
        found = set(inputs) | set(outputs)
        for item in self.items:
            if item not in self.line and (found & set(item.reads)):
                found.add(item)
        for item in reversed(self.items):
            if item not in self.line and (found & set(self.read_by[item])):
                found.add(item)
        return [item for item in self.items if item in found]

    def set_columns(self) -> None:
        """Another stream on the right; the rest, and edges past the line, in lanes on the left."""
        other = self.of_another_stream()
        if other:
            start = next(item for item in other if not item.reads or item is other[-1])
            way = self.longest_way(start, other)
            for item in other:
                item.column = 1 + (item in way and len(other) > len(way))
        spans: list[tuple[int, int, Item | tuple[Item, Item]]] = []
        for item in self.items:
            if item in self.line or item in other:
                continue
            ends = [neighbour.row for neighbour in (*item.reads, *self.read_by[item])]
            spans.append((min(ends), max(ends), item))
        for item in self.line:
            for read in item.reads:
                if read in self.line and self.line.index(item) - self.line.index(read) > 1:
                    spans.append((read.row, item.row, (read, item)))
        lanes: list[list[tuple[int, int]]] = []
        for low, high, thing in sorted(spans, key=lambda span: span[1] - span[0]):
            free = (
                i for i, taken in enumerate(lanes) if all(low >= b or high <= a for a, b in taken)
            )
            lane = next(free, len(lanes))
            lanes[lane:] = lanes[lane:] or [[]]
            lanes[lane].append((low, high))
            if isinstance(thing, Item):
                thing.column = -1 - lane
            else:
                self.lanes[thing] = -1 - lane

    def set_positions(self) -> None:
        """Centres of all items."""
        heights = [
            max(item.height for item in self.items if item.row == row)
            for row in range(1 + max(item.row for item in self.items))
        ]
        self.half = max(item.width for item in self.line) / 2
        beside = [item.width + 12 for item in self.items if item.column < 0]
        self.lane = max([LANE, *beside])
        for item in self.items:
            item.x = self.x_of(item.column)
            item.y = sum(heights[: item.row]) + item.row * GAP + heights[item.row] / 2
        self.height = sum(heights) + (len(heights) - 1) * GAP

    def x_of(self, column: int) -> float:
        """Of a column."""
        if column < 0:
            return -self.half - 14 + self.lane * (column + 0.5)
        return column and self.half + 26 + (column - 0.5) * (STREAM + 26)

    # ---- Edges

    def paths(self) -> Iterator[list[tuple[float, float]]]:
        """The corners of each edge."""
        for item in self.items:
            of_column = [read for read in item.reads if read.column == item.column]
            lowest = min(of_column or item.reads, key=lambda read: read.row, default=None)
            for read in item.reads:
                yield self.path(read, item, read is lowest)

    def path(self, read: Item, item: Item, from_below: bool) -> list[tuple[float, float]]:
        """The corners of one, the last where it enters."""
        leaves = read.top + GAP / 2
        side = item.x + (1 if read.x > item.x else -1) * item.width / 2
        if (read, item) in self.lanes:
            x = self.x_of(self.lanes[read, item])
            left = item.x - item.width / 2
            return [(read.x, read.top), (read.x, leaves), (x, leaves), (x, item.y), (left, item.y)]
        if read.column == item.column:
            return [(read.x, read.top), (item.x, item.bottom)]
        if abs(read.column) > abs(item.column):  # towards the line
            return [(read.x, read.top), (read.x, item.y), (side, item.y)]
        start = [(read.x, read.top), (read.x, leaves)]
        if from_below:
            return [*start, (item.x, leaves), (item.x, item.bottom)]
        before = side + (10 if side > item.x else -10)
        return [*start, (before, leaves), (before, item.y), (side, item.y)]

    # ---- Drawing

    def svg(self, title: str) -> Markup:
        """The drawing, with the graph in words as its text."""
        left = min(
            [item.x - item.width / 2 for item in self.items]
            + [self.x_of(lane) for lane in self.lanes.values()]
        )
        right = max(item.x + item.width / 2 for item in self.items)
        width, height = right - left + 2 * MARGIN, self.height + 2 * MARGIN
        self.left = left - MARGIN
        parts = [self.line_of(path) for path in self.paths()]
        parts += [part for item in self.items for part in self.draw(item)]
        return Markup(
            '<svg class="diagram" role="img" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" '
            'height="{1:.0f}" aria-label="{2}">{3}</svg>'
        ).format(width, height, f"{title}: {in_words(self.graph)}", Markup("").join(parts))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """On the page, where y grows downwards."""
        return x - self.left, self.height + MARGIN - y

    def line_of(self, path: Sequence[tuple[float, float]]) -> Markup:
        """An edge with its head."""
        points = [self.at(*corner) for corner in path]
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        head = f"M{x - 5 * dx - 3 * dy:.1f} {y - 5 * dy - 3 * dx:.1f}L{x:.1f} {y:.1f}"
        head += f"L{x - 5 * dx + 3 * dy:.1f} {y - 5 * dy + 3 * dx:.1f}Z"
        way = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        return Markup('<path class="edge" d="{}"/><path class="head" d="{}"/>').format(way, head)

    def draw(self, item: Item) -> Iterator[Markup]:
        """An item's boxes."""
        if not item.rows:
            node = self.graph.nodes[item.places[0]]
            yield self.box(node, item.x, item.y, item.width)
            return
        branch = self.graph.nodes[item.places[0]].branch
        x, y = self.at(item.x - item.width / 2, item.top)
        yield Markup(
            '<rect class="frame {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="8"/>'
            '<text class="of" x="{:.1f}" y="{:.1f}">{}</text>'
        ).format(branch, x, y, item.width, item.height, x + 8, y + 14, NAMES[branch])
        at: dict[int, tuple[float, float]] = {}
        for row, places in enumerate(item.rows):
            for i, place in enumerate(places):
                shift = (i - (len(places) - 1) / 2) * (PART + 6)
                at[place] = item.x + shift, item.bottom + 8 + row * (ROW + GAP) + ROW / 2 + 2
        for place, (x, y) in at.items():
            sources = self.graph.sources(place)
            starts = [(at[of][0], at[of][1] + ROW / 2) for of in sources if of in at]
            if len(starts) < len(sources):
                starts.append((item.x, item.bottom))
            for start in starts:
                yield self.line_of(elbow(start, (x, y - ROW / 2)))
            if any(reader not in at for of, reader in self.graph.edges() if of == place):
                yield self.line_of(elbow((x, y + ROW / 2), (item.x, item.top)))
        for place, (x, y) in at.items():
            node = self.graph.nodes[place]
            yield self.box(
                node, x, y, max(PART, size_of(node)[0]) if node.kind == "scale" else PART
            )

    def box(self, node: Node, x: float, y: float, width: float) -> Markup:
        """One node."""
        name, (cx, cy) = name_of(node), self.at(x, y)
        if node.kind == "sum":
            shape = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
                node.kind, cx, cy, SMALL
            )
        elif node.kind in ("input", "output"):
            shape = Markup("")
        else:
            tall, round_by = size_of(node)[1], 12 if node.kind == "scale" else 5
            shape = Markup(
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="{}"/>'
            ).format(node.kind, cx - width / 2, cy - tall / 2, width, tall, round_by)
        return shape + Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(cx, cy + 4, name)


def elbow(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """The corners of a line upwards that changes its column on half its way."""
    (x0, y0), (x, y) = start, end
    if x0 == x:
        return [start, end]
    half = (y0 + y) / 2
    return [start, (x0, half), (x, half), end]


def in_words(graph: Graph) -> str:
    """Each node and what it reads, in one sentence."""
    names: dict[int, str] = {}
    clauses = []
    sums = 0
    for place, node in enumerate(graph.nodes):
        if node.kind == "view":
            continue
        read = [names[source] for source in graph.sources(place)]
        names[place] = node.label
        if node.kind == "sum":
            sums += 1
            names[place] = f"sum {sums}"
            clauses.append(f"sum {sums} = {' + '.join(read)}")
        elif node.kind == "scale":
            names[place] = f"{name_of(node)} {read[0]}"
        elif node.kind == "output":
            clauses.append(f"{node.label} = {read[0]}")
        elif node.kind != "input":
            name = f"{node.branch}.{node.label}" if node.branch else node.label
            names[place] = name
            clauses.append(f"{name} reads {' and '.join(read)}")
    return "; ".join(clauses)


def alike(graphs: Sequence[Graph]) -> Graph:
    """One graph for several that differ in their factors alone, which it says as a range."""
    nodes = []
    for same in zip(*(graph.nodes for graph in graphs), strict=True):
        node = same[0]
        if node.factor is not None:
            ends = dict.fromkeys(f"{n.factor:.3g}" for n in (same[0], same[-1]))
            node = replace(node, label=" to ".join(ends))
        nodes.append(node)
    return Graph(tuple(nodes))


def shape_of(graph: Graph) -> object:
    """What graphs have in common that `alike` can take together."""
    return [
        (node.kind, node.reads, node.branch, node.factor is None and node.label)
        for node in graph.nodes
    ]
