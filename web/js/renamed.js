// Workflows of older versions: inputs and values that have other names today (renamed.json, which the server reads, too).

import { app } from "/scripts/app.js";

const table = fetch(new URL("../renamed.json", import.meta.url)).then((answer) => answer.json());

app.registerExtension({
  name: "vdit.Renamed",
  async beforeConfigureGraph(workflow) {
    const renamed = await table;
    const graphs = [workflow, ...(workflow?.definitions?.subgraphs ?? [])];
    for (const node of graphs.flatMap((graph) => graph?.nodes ?? [])) {
      if (renamed[node.type]) rename(node, renamed[node.type]);
    }
  },
});

function rename(node, { inputs = {}, values = {} }) {
  for (const input of node.inputs ?? []) {
    input.name = inputs[input.name] ?? input.name;
    if (input.widget) input.widget.name = inputs[input.widget.name] ?? input.widget.name;
  }
  // Saved by position, and by newer pages by name besides. No other field of these nodes has such a value.
  if (Array.isArray(node.widgets_values)) {
    const every = Object.assign({}, ...Object.values(values));
    node.widgets_values = node.widgets_values.map((value) => every[value] ?? value);
  }
  const named = node.widgets_values_named;
  if (named) {
    node.widgets_values_named = Object.fromEntries(
      Object.entries(named).map(([old, value]) => {
        const name = inputs[old] ?? old;
        return [name, values[name]?.[value] ?? value];
      }),
    );
  }
}
