// A queued prompt in API form, { id: { class_type, inputs } }: what is before a node, and whether it is as it was.

/** The ids of a node and of all that feeds it; undefined if it is not in the graph. */
function before(graph, id) {
  if (!graph?.[id]) return undefined;
  const found = new Set([id]);
  for (const each of found) {
    for (const value of Object.values(graph[each]?.inputs ?? {})) {
      if (isLink(value) && graph[value[0]]) found.add(String(value[0]));
    }
  }
  return found;
}

/** A text that is the same for two prompts if a node would be executed alike in both; undefined if that is not known. */
export function signature(graph, id) {
  const ids = before(graph, id);
  if (!ids) return undefined;
  return JSON.stringify([...ids].sort().map((each) => [each, graph[each].class_type, graph[each].inputs]));
}

/** Whether a report no longer holds in a prompt: its node, or the one that it tells of, is gone, cut off or changed. */
export function behindChanged({ id, by, signature: was }, graph) {
  const ids = before(graph, by);
  if (!ids?.has(id)) return true;
  return was !== undefined && was !== signature(graph, by);
}

function isLink(value) {
  return Array.isArray(value) && value.length === 2 && typeof value[1] === "number";
}
