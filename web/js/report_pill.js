// Drawing reports (report.js) on the canvas: a coloured pill over the node's title, as many lines high as it needs.

const LOOKS = {
  done: { mark: "✓", color: "#2a7a53" },
  partly: { mark: "!", color: "#b3640c" },
  failed: { mark: "✕", color: "#b02a37" },
  idle: { mark: "–", color: "#5c6370" },
};
const FONT = "12px Inter, system-ui, sans-serif";
const LINE = 16;
const PAD = 7;
const GAP = 3;
const MIN_WRAP = 340;

/** Draw { node, text, level, old } each over its node; several over one node stand on each other. */
export function drawPills(context, reports) {
  const bottoms = new Map();
  context.save();
  context.font = FONT;
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const { node, text, level, old } of reports) {
    const { mark, color } = LOOKS[level];
    const lines = wrap(context, `${mark} ${text}`, Math.max(node.size[0], MIN_WRAP) - 2 * PAD);
    const width = Math.max(...lines.map((line) => context.measureText(line).width)) + 2 * PAD;
    const bottom = bottoms.get(node) ?? node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT - GAP - badgesHeight(context, node, width);
    const top = bottom - lines.length * LINE - 4;
    context.globalAlpha = old ? 0.4 : 1;
    context.fillStyle = color;
    context.beginPath();
    context.roundRect(node.pos[0], top, width, bottom - top, 5);
    context.fill();
    context.fillStyle = "#fff";
    lines.forEach((line, row) => context.fillText(line, node.pos[0] + PAD, top + 2.5 + LINE * (row + 0.5)));
    bottoms.set(node, top - GAP);
  }
  context.restore();
}

/** The classic canvas draws a node's badges in the same place, from the right: stand over them if they are in the way. */
function badgesHeight(context, node, width) {
  if (LiteGraph.vueNodesMode || node.flags.collapsed) return 0;
  const badges = node.badges.map((badge) => (typeof badge === "function" ? badge() : badge));
  const taken = badges.reduce((sum, badge) => sum + badge.getWidth(context) + 2, 0);
  return taken && width + taken > node.size[0] ? 22 : 0;
}

/** Whether there is a look for a level. */
export function isLevel(level) {
  return Object.hasOwn(LOOKS, level);
}

function wrap(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (lines.at(-1) && context.measureText(longer).width > width) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}
