// Colours of the pack's sockets and links, in both of ComfyUI's renderers.

import { app } from "/scripts/app.js";

const COLORS = {
  ATTENTION_STORE: "#6f7cf7",
  ATTENTION_RECORDER: "#ee5d92",
  LAYER_MASK: "#1fb8a6",
  HEAD_MASK: "#39a0ea",
  SPARSE_PROFILE: "#d9a441",
  SINK_RECORD: "#9ccc4e",
  SINKS: "#ff5c39",
};

app.registerExtension({
  name: "vdit.SocketColors",
  init: colorVueNodes,
  setup: colorCanvas,
});

// A rule, not a property of the root element: themes remove the latter. A theme that knows these types wins over it.
function colorVueNodes() {
  const rules = Object.entries(COLORS).map(([type, color]) => `--color-datatype-${type}: ${color};`);
  document.head.append(Object.assign(document.createElement("style"), { textContent: `:root { ${rules.join(" ")} }` }));
}

// A theme sets the colour of every type that it does not know to "", so ours must outlive an assignment.
function colorCanvas() {
  for (const colors of [app.canvas.default_connection_color_byType, app.canvas.constructor.link_type_colors]) {
    for (const [type, color] of Object.entries(COLORS)) {
      let themes = colors[type];
      Object.defineProperty(colors, type, {
        get: () => themes || color,
        set: (value) => {
          themes = value;
        },
        configurable: true,
        enumerable: true,
      });
    }
  }
}
