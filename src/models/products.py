"""Matrix products the way round in which the CPU's library is fast: a pass of the compiler.

With an output of few columns, MKL takes two to four times as long as for the same product
transposed (measured: [256, 1024] x [1024, 4] 71 us against 20; [1024, 256] x [256, 10] 84 against
40). Last layers and the gradients of first ones are of that kind.

Imported when something is compiled: it brings the compiler along, which takes a second.
"""

from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

FEW, LONG = 16, 256  # columns of the output; terms of each sum. Below, it is no faster
aten = torch.ops.aten


class WideProducts(CustomGraphPass):
    """Turn products with tall, narrow outputs round."""

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for target in (aten.mm.default, aten.addmm.default):
            for node in graph.find_nodes(op="call_function", target=target):
                left, right = node.args[-2:]
                (rows, terms), columns = left.meta["val"].shape, right.meta["val"].shape[1]
                if columns <= FEW < rows and terms >= LONG and not node.kwargs:
                    _turn_round(graph, node)

    def uuid(self) -> Any:
        """Return what the compiler's cache tells this pass by: its text."""
        return get_hash_for_files((__file__,))


def _turn_round(graph: Graph, node: Node) -> None:
    """Replace a product AB by (B'A')'; what addmm adds is added afterwards."""
    *added, left, right = node.args
    with graph.inserting_before(node):
        turned = [_call(graph, aten.permute.default, m, [1, 0]) for m in (right, left)]
        product = _call(graph, aten.permute.default, _call(graph, aten.mm.default, *turned), [1, 0])
        if added:
            product = _call(graph, aten.add.Tensor, product, added[0])
    node.replace_all_uses_with(product)
    graph.erase_node(node)


def _call(graph: Graph, target: Any, *arguments: Any) -> Node:
    """Add a call to the graph, with the shape of what it returns."""
    node = graph.call_function(target, arguments)
    values = [a.meta["val"] if isinstance(a, Node) else a for a in arguments]
    node.meta["val"] = target(*values)
    return node
