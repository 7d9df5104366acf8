// Names of inputs in the user's language.
//
// ComfyUI gives an input that has a name of its own in the schema ("source prompt") this name as a label, as if the user
// had renamed it. A label wins over the translation, and is saved. So it is taken away where a translation is there.

import { app } from "/scripts/app.js";
import { after } from "./after.js";

app.registerExtension({
  name: "vdit.SlotNames",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("VDiT_")) return;
    translate(node);
    after(node, "onConfigure", () => translate(node));
  },
});

function translate(node) {
  const schema = node.constructor.nodeData?.inputs ?? {};
  for (const input of node.inputs ?? []) {
    const translated = input.localized_name && input.localized_name !== input.name;
    if (translated && input.label && input.label === schema[input.name]?.display_name) delete input.label;
  }
}
