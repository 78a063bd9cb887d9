"""Matrix products in the way in which a CPU is fast at them: a pass of the compiler.

First and last layers have products with one small dimension, at which a library is slow.

- A product of few terms, [220, 10] x [10, 1024], costs less than to write its result to memory
  and to read it again. Where all that is made of it are products of few rows or columns, it is
  written out as additions and multiplications, and each of those as so many sums. The compiler
  then has one loop backward for the gradients of both layers, and that of the hidden layer is
  never stored. The default recipe's compiled step takes two thirds of the time: 252 us, not 393.
- With an output of few columns, the library is slower than for the same product transposed, if
  what it reads lies so (measured: [220, 1024] x [1024, 10] 65 us against 46; [1024, 220] x
  [220, 10] 74 against 35, x [220, 4] 77 against 19). Such products are turned round.

Imported when something is compiled: it brings the compiler along, which takes a second.
Letters: T terms of each sum, R rows, N columns.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._inductor import ir
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.lowering import register_lowering
from torch._inductor.virtualized import ops
from torch.fx import Graph, Node

# With a hidden layer of 1024 and a batch of 220, outputs and gradients take 0.54 of the library's
# time for 10 inputs and 4 classes, 0.8 for 4 and 10, 0.9 for 10 and 10, and more for 16 and 16.
FEW = 10
LARGE = 2**15  # values of a product; below, a tenth is gained, and compiling takes twice as long
NEAR = 2**15  # bytes that stay in a core's nearest cache
LONGEST = 4096  # terms of a sum; longer ones the compiler adds up with care, and slowly
NARROW, LONG = 16, 256  # columns of a product that is turned; its terms, or it is no faster
aten = torch.ops.aten
PRODUCTS, SUM = (aten.mm.default, aten.addmm.default), aten.sum.dim_IntList


class ThinProducts(CustomGraphPass):
    """Write products of few terms out, and turn those with tall, narrow outputs round."""

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        places = {node: place for place, node in enumerate(graph.nodes)}
        ends: dict[Node, int] = {}
        for product in list(_products(graph)):
            found = _ends(product) if _has_few_terms(product) else None
            if found is not None:
                ends |= found
                _write_out(graph, product)
        for end, position in ends.items():
            if end.target in PRODUCTS:
                _sum_up(graph, end, position, ends, places)
        for product in list(_products(graph)):
            if _is_faster_turned(product):
                _turn_round(graph, product)

    def uuid(self) -> Any:
        """Return what the compiler's cache tells this pass by: its text."""
        return get_hash_for_files((__file__,))


# Which products -----------------------------------------------------------------------------------


def _products(graph: Graph) -> Iterator[Node]:
    for target in PRODUCTS:
        for node in graph.find_nodes(op="call_function", target=target):
            if not node.kwargs and _value(node).dtype in (torch.float32, torch.float64):
                yield node


def _has_few_terms(product: Node) -> bool:
    value = _value(product)
    return _value(product.args[-1]).shape[0] <= FEW < min(value.shape) and value.numel() >= LARGE


def _ends(product: Node) -> dict[Node, int] | None:
    """Return where all that is made of a product ends: in sums over its rows or columns.

    Returns:
        Products of few rows or columns, and sums over rows, each with the position among its
        arguments at which it takes what is made of the product; None if there is something else.
    """
    found: dict[Node, int] = {}
    made, seen = [product], {product}
    for node in made:  # which grows
        for user in node.users:
            goes_on = _is_pointwise(user) and _value(user).shape == _value(node).shape
            if goes_on or _is_turned(user):
                if user not in seen:
                    made.append(user)
                    seen.add(user)
                continue
            position = _position(node, user)
            if position is None:
                return None
            found[user] = position
    return found


def _position(node: Node, end: Node) -> int | None:
    """Return at which position such an end takes a node; None if it is none."""
    arguments: Any = end.args
    if end.target is SUM:
        over_rows = arguments[1] == [0] and not _is_turned(node)
        return 0 if over_rows and not end.kwargs else None
    if end.target not in PRODUCTS or end.kwargs:
        return None
    *_, left, right = arguments
    (rows, terms), columns = _value(left).shape, _value(right).shape[1]
    if terms > LONGEST or _straight(left) is _straight(right):
        return None
    if right is node and rows <= FEW:
        return -1
    return -2 if left is node and columns <= FEW else None


def _is_faster_turned(product: Node) -> bool:
    left, right = (_value(factor) for factor in product.args[-2:])
    (rows, terms), columns = left.shape, right.shape[1]
    if not columns <= NARROW < rows:
        return False
    lies_so, long = left.stride()[0] == 1 and rows * terms >= LARGE, terms >= LONG
    return lies_so or (long and right.stride()[0] == 1)


def _is_pointwise(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags


def _is_turned(node: Node) -> bool:
    return node.target is aten.permute.default and node.args[1] == [1, 0]


# What becomes of them -----------------------------------------------------------------------------


def _write_out(graph: Graph, product: Node) -> None:
    """Replace a product of few terms."""
    *added, left, right = _arguments(product)
    with graph.inserting_before(product):
        if not _value(right).is_contiguous():  # a row is read as one vector
            right = _call(graph, aten.clone.default, right, memory_format=torch.contiguous_format)
        new = _call(graph, FEW_TERMS, left, right)
        if added:
            new = _call(graph, aten.add.Tensor, new, added[0])
    _replace(graph, product, new)


def _sum_up(
    graph: Graph, product: Node, position: int, ends: dict[Node, int], places: dict[Node, int]
) -> None:
    """Replace a product with few rows, or columns, by so many sums.

    A sum over the rows of the same factor, as the gradient of a bias is, becomes one more of them.
    """
    *added, left, right = _arguments(product)
    turn = position == -2
    wide, few = (left, right) if turn else (right, left)
    sums = [u for u in _straight(wide).users if u.target is SUM and u in ends]
    first = min([product, *sums], key=places.__getitem__)
    there = places.get(_straight(few), len(places)) < places[first]
    if _is_turned(wide) != turn or not there:
        sums, first = [], product
    rows = _value(few).shape[1 if turn else 0]
    with graph.inserting_before(first):
        factors = _laid(graph, few, turn), _laid(graph, wide, turn)
        new = all_rows = _call(graph, FEW_ROWS, *factors, bool(sums))  # [R, N] or [R + 1, N]
        if sums:
            new = _call(graph, aten.slice.Tensor, all_rows, 0, 0, rows)
        if turn:
            new = _call(graph, aten.permute.default, new, [1, 0])
        last = [_call(graph, aten.slice.Tensor, all_rows, 0, rows, rows + 1) for _ in sums]
        last = [
            row if s.args[2:] == (True,) else _call(graph, aten.squeeze.dim, row, 0)
            for s, row in zip(sums, last, strict=True)
        ]
    if added:
        with graph.inserting_before(product):
            new = _call(graph, aten.add.Tensor, new, added[0])
    for old, replacement in zip((product, *sums), (new, *last), strict=True):
        _replace(graph, old, replacement)


def _turn_round(graph: Graph, product: Node) -> None:
    """Replace a product AB by (B'A')'; what addmm adds is added afterwards."""
    *added, left, right = _arguments(product)
    with graph.inserting_before(product):
        factors = _laid(graph, right, True), _laid(graph, left, True)
        new = _call(graph, aten.permute.default, _call(graph, aten.mm.default, *factors), [1, 0])
        if added:
            new = _call(graph, aten.add.Tensor, new, added[0])
    _replace(graph, product, new)


def _laid(graph: Graph, node: Node, turn: bool) -> Node:
    """Return a matrix, or its transpose, as what it was made from or as that's transpose."""
    straight = _straight(node)
    if _is_turned(node) == turn:
        return straight
    return _call(graph, aten.permute.default, straight, [1, 0])


def _straight(node: Node) -> Node:
    return node.args[0] if _is_turned(node) else node  # type: ignore[return-value]


def _arguments(node: Node) -> Any:
    return node.args


def _value(node: Any) -> Tensor:
    value: Tensor = node.meta["val"]
    return value


def _call(graph: Graph, target: Any, *arguments: Any, **options: Any) -> Node:
    """Add a call to the graph, with the shape of what it returns."""
    node = graph.call_function(target, arguments, options)
    values = [_value(a) if isinstance(a, Node) else a for a in arguments]
    node.meta["val"] = target(*values, **options)
    return node


def _replace(graph: Graph, old: Node, new: Node) -> None:
    """Replace a node; what was transposed for it alone would count as a second use of that."""
    factors = old.all_input_nodes
    old.replace_all_uses_with(new)
    graph.erase_node(old)
    for factor in factors:
        if _is_turned(factor) and not factor.users:
            graph.erase_node(factor)


# What the compiler makes of it --------------------------------------------------------------------


@torch.library.custom_op("kindling::few_terms", mutates_args=())
def few_terms(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of [R, T] and [T, N], T small."""
    return left @ right


@torch.library.custom_op("kindling::few_rows", mutates_args=())
def few_rows(left: Tensor, right: Tensor, with_sum: bool) -> Tensor:
    """Return the product of [R, T] and [T, N], R small; below it the sum of the N columns."""
    return torch.cat([left, torch.ones_like(left[:1])]) @ right if with_sum else left @ right


few_terms.register_fake(lambda left, right: left.new_empty(len(left), right.shape[1]))
few_rows.register_fake(
    lambda left, right, with_sum: left.new_empty(len(left) + with_sum, right.shape[1])
)
FEW_TERMS, FEW_ROWS = torch.ops.kindling.few_terms.default, torch.ops.kindling.few_rows.default


def _lower_few_terms(left: Any, right: Any) -> Any:
    """Return an element as the formula that it is, for others to take in.

    If the right factor is larger than the nearest cache, from which each row would take it anew,
    the product is stored in blocks of columns, one after the other.
    """
    left.realize()
    right.realize()
    right = ir.ExternKernel.require_contiguous(right)
    (rows, terms), columns = map(int, left.get_size()), int(right.get_size()[1])
    a, b = left.make_loader(), right.make_loader()
    device, dtype = left.get_device(), left.get_dtype()

    def block(start: int, width: int) -> Any:
        def element(index: Any) -> Any:
            row, column = index[0], index[1] + start
            total = ops.mul(a([row, 0]), b([0, column]))
            for term in range(1, terms):
                total = ops.add(total, ops.mul(a([row, term]), b([term, column])))
            return total

        ranges = [rows, width]
        return ir.Pointwise.create(device=device, dtype=dtype, inner_fn=element, ranges=ranges)

    width = columns
    if width * terms * dtype.itemsize > NEAR:
        while width * terms * dtype.itemsize > NEAR // 2:  # the rest is for what is written
            width = 16 * math.ceil(width / 32)
    starts = range(0, columns, width)
    blocks = [block(start, min(width, columns - start)) for start in starts]
    return blocks[0] if len(blocks) == 1 else ir.TensorBox(ir.ConcatKernel.create(blocks, 1))


def _lower_few_rows(left: Any, right: Any, with_sum: bool) -> Any:
    """Return a sum a row: the compiler makes one loop of them, and of what `right` is made of."""
    left.realize()
    (rows, terms), columns = map(int, left.get_size()), int(right.get_size()[1])
    a, b = left.make_loader(), right.make_loader()
    dtype = left.get_dtype()

    def row(number: int) -> Any:
        def element(index: Any, reduced: Any) -> Any:
            (_, column), (term,) = index, reduced
            value = b([term, column])
            return ops.mul(a([number, term]), value) if number < rows else value

        return ir.Reduction.create(
            device=left.get_device(),
            dst_dtype=dtype,
            src_dtype=dtype,
            inner_fn=element,
            ranges=[1, columns],
            reduction_ranges=[terms],
            reduction_type="sum",
        )

    sums = [row(number) for number in range(rows + with_sum)]
    return ir.TensorBox(ir.ConcatKernel.create(sums, 0))


register_lowering(FEW_TERMS, type_promotion_kind=None)(_lower_few_terms)
register_lowering(FEW_ROWS, type_promotion_kind=None)(_lower_few_rows)
