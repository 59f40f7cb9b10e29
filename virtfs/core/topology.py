r"""The file topology: the network of a mount as a graph, in Graphviz's DOT language.

    virt3 ═══ tap3 ─── bridge0 ─── eth0         ═══ wire   ─── port of a bridge   ┄┄┄ cable
      ┆
    virt4 ═══ tap4 (in a box for its network namespace)

The graph is made from the objects of status.json (core.status), so its names are already escaped (core.quoting).
Counters are left out, so the text changes only when the network does.

In a quoted string of DOT, the only escape is \". A label also has escapes of its own, such as \n and \N, and entities
such as &lt; (graphviz.org, "escString" and "Character encodings"). So each backslash in a text is doubled, and each
quote and ampersand is escaped.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]

_HEAD = """\
graph virtfs {
  graph [rankdir=LR, fontname="sans-serif", style=rounded];
  node [shape=box, fontname="sans-serif", fontsize=11];
  edge [fontname="sans-serif", fontsize=9];
"""


def topology(virts: Iterable[Object], bridges: Iterable[Object], cables: Iterable[Object]) -> Iterator[str]:
    """Yield the text of the file in pieces, from the objects that the functions of core.status return.

    Each object is taken from its iterable in one step, so all values of an object are from the same moment.
    """
    taken: tuple[list[Object], list[Object], list[Object]] = [], [], []
    for objects, some in zip((virts, bridges, cables), taken, strict=True):
        for one in objects:
            some.append(one)
            yield ""
    graph = _Graph(*taken)
    yield from graph.made()
    yield _HEAD
    yield from (f"  {line}\n" for line in graph.lines())
    yield "}\n"


class _Graph:
    """Makes the lines of one graph: first made(), then lines(). Other tasks may run between two of their texts.

    The id of each node begins with the kind of the node, because nodes of different kinds may have the same name.
    """

    def __init__(self, virts: list[Object], bridges: list[Object], cables: list[Object]) -> None:
        self._virts = virts
        self._bridges = bridges
        self._cables = cables
        # The attributes of each node, keyed by the name of its network namespace ("" for the mount's) and by its id.
        self._nodes: dict[str, dict[str, str]] = {}
        self._edges: dict[tuple[str, str], str] = {}

    def made(self) -> Iterator[str]:
        """Make the nodes and edges of bridges and taps. Yield "" after each tap, and after each member of a bridge."""
        taps = {virt["tap"]["name"] for virt in self._virts if not virt["tap"]["netns"]}
        for bridge in self._bridges:
            yield from self._add_bridge(bridge, taps)
        for virt in self._virts:
            self._add_tap(virt)
            yield ""

    def lines(self) -> Iterator[str]:
        """Yield the lines between the braces."""
        for virt in self._virts:
            yield f"{_quoted(virt['name'])} [{_label(*_virt_lines(virt))}, style={_style(virt)}];"
        for netns, nodes in self._nodes.items():
            named = (f"{_quoted(node)} [{attributes}];" for node, attributes in nodes.items())
            if netns:
                yield f"subgraph {_quoted(f'cluster {netns}')} {{"
                yield f"  label={_quoted(f'netns {netns}')};"
                yield from (f"  {line}" for line in named)
                yield "}"
            else:
                yield from named
        for (one, other), attributes in self._edges.items():
            yield f"{_quoted(one)} -- {_quoted(other)} [{attributes}];"
        yield from self._cable_lines()

    def _add_bridge(self, bridge: Object, taps: set[str]) -> Iterator[str]:
        state = "lost" if bridge["lost"] else "up" if bridge["up"] else "down"
        node = _bridge_id("", bridge["name"])
        label = _label(bridge["name"], state, *bridge["inet"])
        self._node("", node, f"{label}, shape=hexagon, style={_style(bridge)}")
        for member in bridge["members"]:
            if member["name"] not in taps:
                self._node("", f"host {member['name']}", f"{_label(member['name'])}, shape=ellipse")
                self._edges[node, f"host {member['name']}"] = "style=solid"
            yield ""

    def _add_tap(self, virt: Object) -> None:
        tap = virt["tap"]
        netns, node = tap["netns"], f"tap{virt['unit']}"
        self._node(netns, node, f"{_label(tap['name'], *tap['addresses'])}, style={_style(virt)}")
        self._edges[virt["name"], node] = f"{_label(*_wire_lines(virt))}, penwidth=3, style={_style(virt)}"
        if tap["bridge"]:
            bridge = _bridge_id(netns, tap["bridge"])
            if bridge not in self._nodes.get(netns, {}):  # another program has created this bridge
                self._node(netns, bridge, f"{_label(tap['bridge'])}, shape=hexagon")
            self._edges[node, bridge] = "style=solid"

    def _node(self, netns: str, node: str, attributes: str) -> None:
        self._nodes.setdefault(netns, {})[node] = attributes

    def _cable_lines(self) -> Iterator[str]:
        names = {virt["name"] for virt in self._virts}
        for cable in self._cables:
            for end in cable["ends"]:
                if end not in names:
                    yield f"{_quoted(end)} [{_label(end)}, shape=ellipse];"
            one, other = cable["ends"]
            impaired = [cable["impair"]] if cable["impair"] else []
            yield f"{_quoted(one)} -- {_quoted(other)} [{_label('cable', *impaired)}, style=dashed, constraint=false];"


def _virt_lines(virt: Object) -> Iterator[str]:
    """Yield the lines of the label of an interface."""
    yield virt["name"]
    yield virt["address"]
    if virt["owner"]:
        yield f"owner {virt['owner_name'] or virt['owner']}"
    if virt["group"]:
        yield f"group {virt['group_name'] or virt['group']}"
    if virt["description"]:
        yield virt["description"]


def _wire_lines(virt: Object) -> Iterator[str]:
    """Yield the lines of the label of a wire: its state and MTU, and its impairments and filter if it has any."""
    plugged = virt["tap"]["carrier"] or not virt["up"]
    yield "lost" if virt["lost"] else "down" if not virt["up"] else "up" if plugged else "no carrier"
    yield f"mtu {virt['mtu']}"
    if virt["impair"]:
        yield f"impair {virt['impair']}"
    if virt["filter"]:
        yield f"filter {virt['filter']}"


def _style(one: Object) -> str:
    return "dotted" if one["lost"] or not one["up"] else "solid"


def _bridge_id(netns: str, name: str) -> str:
    return f"bridge {netns}/{name}"


def _label(*lines: str) -> str:
    return 'label="' + "\\n".join(_escaped(line) for line in lines) + '"'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
