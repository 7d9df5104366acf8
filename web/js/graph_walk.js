// Following links from node to node: through subgraphs, reroutes and bypassed nodes, as the run itself will go.

const BYPASSED = 4;

/** The nodes that feed an input, each with the slot of its output; several if the subgraph around is used twice. */
export function* origins(node, slot) {
  const link = linkOf(node.graph, node.inputs?.[slot]?.link);
  if (!link) return;
  if (link.originIsIoNode) {
    for (const host of hosts(node.graph)) yield* origins(host, link.origin_slot);
    return;
  }
  const origin = node.graph.getNodeById(link.origin_id);
  if (origin) yield* sources(origin, link.origin_slot);
}

/** The nodes that an output feeds. */
export function* consumers(node, slot) {
  for (const id of node.outputs?.[slot]?.links ?? []) yield* targets(node.graph, linkOf(node.graph, id));
}

/** The slots of a node's inputs or outputs of one type, or of one of several: "LAYER_MASK,HEAD_MASK". */
export function slotsOf(type, slots) {
  const wanted = new Set(String(type).split(","));
  const fits = (slot) => String(slot.type).split(",").some((each) => wanted.has(each));
  return (slots ?? []).flatMap((slot, index) => (fits(slot) ? [index] : []));
}

/** The nodes on the way to a running node, the outermost first; [] if the id ("12", "5:3" in a subgraph) is not here. */
export function nodesOnPath(rootGraph, executionId) {
  const path = [];
  let graph = rootGraph;
  for (const id of String(executionId).split(":")) {
    const node = graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
    if (!node) return [];
    path.push(node);
    graph = node.subgraph;
  }
  return path;
}

/** All nodes of a graph and of its subgraphs. */
export function* everyNode(graph) {
  for (const node of graph.nodes) {
    yield node;
    if (node.subgraph) yield* everyNode(node.subgraph);
  }
}

// A subgraph's node calls itself virtual too: it is asked for first.
function* sources(node, slot) {
  if (node.mode === BYPASSED) {
    const [through] = slotsOf(node.outputs?.[slot]?.type, node.inputs);
    if (through !== undefined) yield* origins(node, through);
  } else if (node.subgraph) {
    const inner = linkOf(node.subgraph, node.subgraph.outputs[slot]?.linkIds[0]);
    if (inner?.originIsIoNode) yield* origins(node, inner.origin_slot);
    else if (inner) yield* sources(node.subgraph.getNodeById(inner.origin_id), inner.origin_slot);
  } else if (node.isVirtualNode) {
    const elsewhere = node.resolveVirtualOutput?.(slot);
    const link = elsewhere ? null : node.getInputLink?.(slot);
    if (elsewhere) yield* sources(elsewhere.node, elsewhere.slot);
    else if (link) yield* origins(node.graph.getNodeById(link.target_id), link.target_slot);
  } else {
    yield { node, slot };
  }
}

function* targets(graph, link) {
  if (!link) return;
  if (link.targetIsIoNode) {
    for (const host of hosts(graph)) yield* consumers(host, link.target_slot);
    return;
  }
  const node = graph.getNodeById(link.target_id);
  if (!node) return;
  if (node.mode === BYPASSED) {
    for (const slot of slotsOf(node.inputs[link.target_slot]?.type, node.outputs)) yield* consumers(node, slot);
  } else if (node.subgraph) {
    const ids = node.subgraph.inputs[link.target_slot]?.linkIds ?? [];
    for (const id of ids) yield* targets(node.subgraph, linkOf(node.subgraph, id));
  } else if (node.isVirtualNode) {
    yield* consumers(node, 0);
  } else {
    yield node;
  }
}

function linkOf(graph, id) {
  return id == null ? null : graph?.getLink(id);
}

/** The subgraph nodes that hold this graph; none for the outermost. */
function hosts(graph) {
  const root = graph.rootGraph;
  return [root, ...root.subgraphs.values()].flatMap((each) => each.nodes.filter((node) => node.subgraph === graph));
}
